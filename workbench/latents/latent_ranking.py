"""Find the SAE latents that change with a persona, ranked by effect size and tested on held-out groups.

1. Training contexts are labelled as for a direction (directions/labelled_activations.py). The default,
   "choice_within", uses the model's own choice under varied system texts. It reads the decision token, the
   last token before the answer, and subtracts each context's mean, so that only the effect of the texts is
   left. "choice" is the same without the subtraction. "answer" compares matching with not matching answers at
   the answer token, as published. The SAE encodes the activations.
2. The question groups are split into two halves. On the first half each latent's effect size is Cohen's d:
   the difference of its mean activation between rows with and without the persona over the pooled standard
   deviation. Latents that are active in fewer than `least` of the rows are ignored.
3. The k latents with the largest |d| whose sign is the same on the second half are kept. Effect size and AUC
   in the table are from the second half. A latent's weight is its signed mean difference over all rows; plus
   = more of the persona.

rule="percentile" is the rule of the paper (arXiv 2601.02896): every latent whose |mean difference| is above
the 99th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.contexts import Orders, Slot
from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.class_split import centred_by, positive
from workbench.directions.direction_method import Labels
from workbench.directions.direction_quality import auc
from workbench.directions.labelled_cache import LabelledCache
from workbench.errors import UserError
from workbench.html_text import ShowsFacts, escape, html_table, plain_table
from workbench.models import Runner, runner_for
from workbench.objectives import LatentActivationObjective, latent_activation
from workbench.personas import Split
from workbench.sae import Sae, SaeCheck, TrainingProbe, check_sae, context_texts
from workbench.sae.sae_check import DENSITY_HEADER
from workbench.schema import LatentEntry, LatentsFile, SaeCheckEntry

Rule = Literal["effect", "percentile"]


@dataclass(frozen=True, repr=False)
class RankedLatent(ShowsFacts):
    """One SAE latent, and how its activation differs between texts that show a persona and texts that do not.

    A *row* of the data is one text whose latent activation was read at one token.

    Attributes:
        latent: Number of the latent.
        weight: Mean activation over rows that show the persona minus that over the others.
        effect_size: Cohen's d of that difference on held-out question groups.
        auc: AUC with which its activation separates the two kinds of rows, on held-out question groups.
        density: Fraction of the tokens of the training questions on which it is active, without the first
            token of each; nan if it was not measured.
        mean: Mean activation over all rows.
        max_activation: Largest activation over all rows.
        label: The tokens that its decoder row promotes, or a name that a user gave.
        top: Texts in which it is most active, as (activation, text).
        sae: The SAE; None if the ranking was read from a file.
        decision_share: Fraction of the rows in which it is active at the token that is read.
        label_source: The user who gave the label; "" if it is the promoted tokens.
    """

    latent: int
    weight: float
    effect_size: float
    auc: float
    density: float
    mean: float
    max_activation: float
    label: str = ""
    top: tuple[tuple[float, str], ...] = ()
    sae: Sae | None = field(default=None, repr=False, compare=False)
    decision_share: float = math.nan
    label_source: str = ""

    @property
    def name(self) -> str:
        """Name of the latent, such as `latent 17`."""
        return f"latent {self.latent}"

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return what a notebook shows: weight, AUC, effect size, density and strongest context."""
        fires = {"fires most in": self.top[0][1]} if self.top else {}
        numbers: dict[str, object] = {
            "weight": self.weight,
            "AUC": self.auc,
            "effect size": self.effect_size,
            "density": self.density,
        }
        return f"{self.name.capitalize()} ({self.label or 'no label'})", numbers | fires

    def objective(self) -> LatentActivationObjective:
        """Return an objective for the search: the latent's activation at the last token before the answer.

        Raises:
            UserError: The latent was read from a file, without its SAE.
        """
        if self.sae is None:
            raise UserError(
                f"{self.name} came from a file without its SAE: use latent_activation(sae, [{self.latent}])"
            )
        return latent_activation(self.sae, [self.latent])


@dataclass(frozen=True, repr=False)
class LatentRanking:
    """The SAE latents that change with a persona, the strongest first.

    Attributes:
        persona: Name of the persona.
        sae: Name of the SAE.
        site: Site in the model that the SAE reads.
        labels: How texts were divided into the two compared kinds: by which answer the model chose
            ("choice"), by the same relative to each question's mean ("choice_within"), or by the answer with
            which they end ("answer").
        rule: How latents were chosen: by the largest effect sizes ("effect"), or by the paper's rule
            ("percentile").
        latents: The latents.
        check: How well the SAE reconstructs the training questions; None in files of an earlier version.
    """

    persona: str
    sae: str
    site: str
    labels: str
    rule: str
    latents: tuple[RankedLatent, ...]
    check: SaeCheck | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def __iter__(self) -> Iterator[RankedLatent]:
        return iter(self.latents)

    def __getitem__(self, index: int) -> RankedLatent:
        return self.latents[index]

    @property
    def ids(self) -> list[int]:
        """Numbers of the latents."""
        return [row.latent for row in self.latents]

    @property
    def weights(self) -> list[float]:
        """Signed weights of the latents: plus = more active if the persona is shown."""
        return [row.weight for row in self.latents]

    @property
    def table(self) -> pd.DataFrame:
        """Table of the ranking, with one row per latent."""
        rows = [
            {k: v for k, v in _plain(row).items() if k != "top"}
            | {"fires_most_in": row.top[0][1] if row.top else ""}
            for row in self.latents
        ]
        return pd.DataFrame(rows).rename(columns={"density": DENSITY_HEADER})

    def labelled(self, labels: Mapping[int, str], source: str = "the user") -> LatentRanking:
        """Return the ranking with a user's labels for some of its latents.

        Other latents keep as label the tokens whose logits they raise.

        Args:
            labels: Labels by the latent's number (`wb.latent_labels`).
            source: Who gave the labels.
        """
        own = [
            replace(row, label=labels[row.latent], label_source=source) if row.latent in labels else row
            for row in self.latents
        ]
        return replace(self, latents=tuple(own))

    def objective(self, sae: Sae) -> LatentActivationObjective:
        """Return an objective for the search: the weighted sum of the latents' activations (as in SAEGA).

        Args:
            sae: The SAE of the latents.
        """
        return latent_activation(sae, self.ids, self.weights)

    def to_file(self) -> LatentsFile:
        """Return the ranking as the content of latents.json."""
        rows = [LatentEntry(**_plain(row)) for row in self.latents]
        check = None
        if self.check is not None:
            values = {
                name: getattr(self.check, name) for name in ("explained_variance", "by_layer", "l0", "tokens")
            }
            check = SaeCheckEntry(**values, warnings=list(self.check.warnings))
        return LatentsFile(
            persona=self.persona,
            sae=self.sae,
            site=self.site,
            labels=self.labels,
            rule=self.rule,
            check=check,
            latents=rows,
        )

    @classmethod
    def from_file(cls, file: LatentsFile) -> LatentRanking:
        """Make the ranking from the content of latents.json; its latents have no SAE."""
        rows = tuple(_ranked(row) for row in file.latents)
        check = None
        if file.check is not None:
            explained, l0 = (
                _missing_as_nan("", value) for value in (file.check.explained_variance, file.check.l0)
            )
            by_layer = {
                layer: float(_missing_as_nan("", value)) for layer, value in file.check.by_layer.items()
            }
            check = SaeCheck(
                explained, by_layer, l0, torch.zeros(0), file.check.tokens, tuple(file.check.warnings)
            )
        return cls(file.persona, file.sae, file.site, file.labels, file.rule, rows, check)

    def __repr__(self) -> str:
        check = f"; SAE: {self.check.summary}" if self.check is not None else ""
        caption = f"{len(self)} latents of {self.sae} at {self.site} that go with {self.persona}, by {self.labels}, {self.rule}{check}"
        return plain_table(
            self.table.filter(["latent", "label", "weight", "auc", "effect_size", "fires_most_in"]), caption
        )

    def _repr_html_(self) -> str:
        lines = (f"SAE: {self.check.summary}.", *self.check.warnings) if self.check is not None else ()
        notes = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return (
            html_table(
                self.table, caption=f"Latents of {self.sae} at {self.site} that go with {self.persona}"
            )
            + notes
        )


@dataclass(frozen=True)
class LatentRankingOptions:
    """Options of `rank_latents`, which ranks an SAE's latents by how well they distinguish a persona.

    Attributes:
        least: Smallest fraction of the texts in which a latent must be active to be ranked.
        orders: Order of the two options in questions: "both", "original" or "random".
        texts: Number of training questions on which density and the SAE's reconstruction are measured.

    Example:
        >>> wb.LatentRankingOptions(least=0.02).texts
        200
    """

    least: float = 0.01
    orders: Orders = "both"
    texts: int = 200


def rank_latents(
    model: Any,
    sae: Sae,
    train: Split | LabelledCache,
    k: int = 20,
    labels: Labels = "choice_within",
    rule: Rule = "effect",
    n: int = 384,
    slot: Slot = "system",
    seed: int = 0,
    options: LatentRankingOptions | None = None,
) -> LatentRanking:
    """Find the latents of an SAE whose activations best distinguish whether the model shows a persona.

    A *row* of the data is a question, with a system text or without one, whose activation is read at one
    token.

    Latents are ranked on one half of the question groups. They are kept if their effect on the other half has
    the same sign.

    Args:
        model: A loaded model or its runner.
        sae: The SAE.
        train: A split, on whose questions the model is run, or activations that you already have
            (`LabelledCache`). With the latter, labels "choice_within" needs its `contexts`, and the SAE's
            reconstruction and the latents' density are not measured.
        k: Number of latents to keep.
        labels: Which rows are compared. "choice": rows in which the model chose the persona's answer with
            rows in which it chose the other. "choice_within": rows in which the persona's answer is likelier
            than on average for the same question with the others; activations are taken relative to the
            question's mean. "answer": rows that end in the persona's answer with rows that end in the other,
            as in the paper.
        rule: "effect": largest effect sizes (Cohen's d); "percentile": the rule of the paper, which ignores
            k.
        n: Number of rows of data.
        slot: Place in the chat where system texts are put, with which the model's choices vary.
        seed: Seed of the drawing of rows and of the two halves.
        options: Smallest firing rate, order of options, number of texts. None: the defaults.

    Returns:
        The kept latents, the strongest first, with their signed weights (plus = more of the persona).

    Raises:
        UserError: SAE and model do not fit, the rule is unknown, k is below 1, or no latent distinguishes the
            persona.

    Example:
        >>> latents = wb.rank_latents(model, sae, data.train, k=3, n=96)
        >>> len(latents.ids) <= 3
        True
    """
    if rule not in ("effect", "percentile") or k < 1:
        raise UserError(f"expected rule 'effect' or 'percentile' and k of at least 1, found {rule!r} and {k}")
    runner, options = runner_for(model), options or LatentRankingOptions()
    sae.check(runner)
    if sae.site.hook != "resid_post":
        raise UserError(
            f"ranking reads outputs of blocks (resid_post): SAE {sae.name!r} reads {sae.site.name}"
        )
    rows = _encode(
        ActivationSampler(runner, [sae.site.layer], slot, seed, options.orders), sae, train, labels, n
    )
    chosen = _above_percentile(rows.difference) if rule == "percentile" else _largest(rows, options.least, k)
    persona = train.persona if isinstance(train, LabelledCache) else train.persona.name
    if not chosen:
        raise UserError(f"no latent of SAE {sae.name!r} tells {persona} on these {len(rows.shown)} rows")
    check = (
        None
        if isinstance(train, LabelledCache)
        else check_sae(sae, runner, context_texts(runner, train, options.texts, slot, seed))
    )
    described = tuple(_describe(runner, sae, i, rows, check) for i in chosen)
    return LatentRanking(persona, sae.name, sae.site.name, labels, rule, described, check)


def persona_probe(
    model: Any, layer: int, train: Split, held_out: Split, n: int = 384, slot: Slot = "system", seed: int = 0
) -> TrainingProbe:
    """Collect activations on a persona's questions, labelled by which of the two answers the model chose.

    Different system texts are put before the questions, so that the choices vary. The result is used to find
    the SAE latent that separates the choices best.

    Args:
        model: A loaded model or its runner.
        layer: Layer whose output is read.
        train: Questions to choose the latent on.
        held_out: Questions to measure its AUC on.
        n: Number of activations from each of `train` and `held_out`.
        slot: Place in the chat where the system texts go.
        seed: Seed of the drawing of questions and system texts.
    """
    draw = ActivationSampler(runner_for(model), [layer], slot, seed)
    a, b = (draw.labelled(split, "choice", n) for split in (train, held_out))
    return TrainingProbe(
        a.states[layer], positive(a.scores).numpy(), b.states[layer], positive(b.scores).numpy()
    )


def effect_sizes(activations: Float[Tensor, "n d_sae"], shown: Bool[Tensor, " n"]) -> Float[Tensor, " d_sae"]:
    """Compute Cohen's d of every latent; plus = more active if the persona is shown.

    Args:
        activations: Activations of all latents, one row per observation.
        shown: For each row, whether the persona is shown.

    Returns:
        float64 [d_sae]; 0 for a latent that does not vary, or if either class has fewer than two rows.
    """
    a, b = activations[shown].double(), activations[~shown].double()
    if len(a) < 2 or len(b) < 2:
        return torch.zeros(activations.shape[1], dtype=torch.float64)
    pooled = ((len(a) - 1) * a.var(dim=0) + (len(b) - 1) * b.var(dim=0)) / (len(a) + len(b) - 2)
    difference = a.mean(dim=0) - b.mean(dim=0)
    return torch.where(pooled > 0, difference / pooled.clamp(min=1e-30).sqrt(), torch.zeros_like(difference))


def group_halves(groups: Sequence[str], seed: int) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Split the question groups at random into two halves.

    Args:
        groups: Question group of each row of the data.
        seed: Seed of the split.

    Returns:
        Two masks over the rows: those in the first half of the groups, and those in the second half.

    Raises:
        UserError: There are fewer than two groups.
    """
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"ranking needs at least 2 question groups to hold one half out, found {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    first = torch.from_numpy(np.isin(index, order[: (len(names) + 1) // 2]))
    return first, ~first


@dataclass(frozen=True)
class _Rows:
    """SAE activations of the training rows, with the effect sizes computed from them.

    Attributes:
        raw: Activations of all latents.
        compared: Activations that are compared between rows (within contexts: minus each context's mean).
        shown: For each row, whether the persona is shown.
        held_out: Mask of the rows of the held-out half.
        difference: Mean of `compared` with the persona minus mean without.
        sizes: Effect sizes on the ranking half and on the held-out half.
        texts: Text of each row's context.
    """

    raw: Float[Tensor, "n d_sae"]
    compared: Float[Tensor, "n d_sae"]
    shown: Bool[Tensor, " n"]
    held_out: Bool[Tensor, " n"]
    difference: Float[Tensor, " d_sae"]
    sizes: tuple[Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]
    texts: tuple[str, ...]


def _encode(draw: ActivationSampler, sae: Sae, train: Split | LabelledCache, labels: Labels, n: int) -> _Rows:
    if labels not in ("choice", "choice_within", "answer"):
        raise UserError(f"unknown labels {labels!r}: expected choice, choice_within or answer")
    if isinstance(train, LabelledCache):
        train.activations(draw.layers, labels)  # an error for unfitting data comes before the SAE runs
        data = train.activations(draw.layers)
    else:
        data = draw.labelled(train, "answer" if labels == "answer" else "choice", n)
    with torch.no_grad():
        raw = sae.encode(data.states[sae.site.layer])
    compared, scores = raw, data.scores
    if labels == "choice_within":
        compared, scores = (
            centred_by(raw, data.context_ids),
            centred_by(scores[:, None], data.context_ids)[:, 0],
        )
    shown = positive(scores)
    first, second = group_halves(data.groups, draw.seed)
    sizes = (effect_sizes(compared[first], shown[first]), effect_sizes(compared[second], shown[second]))
    difference = compared[shown].mean(dim=0) - compared[~shown].mean(dim=0)
    return _Rows(raw, compared, shown, second, difference, sizes, data.texts)


def _largest(rows: _Rows, least: float, k: int) -> list[int]:
    ranking, held_out = rows.sizes
    agreeing = ((rows.raw != 0).float().mean(dim=0) >= least) & (ranking * held_out > 0)
    strength = torch.where(agreeing, ranking.abs(), torch.zeros_like(ranking))
    order = torch.argsort(strength, descending=True, stable=True)[:k].tolist()
    return [i for i in order if strength[i] > 0]


def _above_percentile(difference: Tensor, percent: float = 99.0) -> list[int]:
    size = difference.abs()
    kept = size > float(np.percentile(size.numpy(), percent))
    return [i for i in torch.argsort(size, descending=True, stable=True).tolist() if kept[i]]


def _describe(runner: Runner, sae: Sae, latent: int, rows: _Rows, check: SaeCheck | None) -> RankedLatent:
    column = rows.raw[:, latent]
    top = [i for i in torch.argsort(column, descending=True, stable=True)[:3].tolist() if column[i] != 0]
    return RankedLatent(
        latent,
        weight=float(rows.difference[latent]),
        effect_size=float(rows.sizes[1][latent]),
        auc=auc(rows.compared[rows.held_out, latent], rows.shown[rows.held_out]),
        density=float("nan") if check is None else float(check.density[latent]),
        mean=float(column.mean()),
        max_activation=float(column.max()),
        label=promoted(runner, sae, latent),
        top=tuple((float(column[i]), rows.texts[i]) for i in top),
        sae=sae,
        decision_share=float((column != 0).float().mean()),
    )


@torch.no_grad()
def promoted(runner: Runner, sae: Sae, latent: int, n: int = 3) -> str:
    """Return the tokens whose logits a latent's decoder row raises most, as a hint to its meaning.

    They are computed with the final norm and the unembedding, and joined by commas.

    Args:
        runner: The model's runner.
        sae: The SAE.
        latent: Number of the latent.
        n: Number of tokens.
    """
    logits = runner.logits(sae.W_dec[latent].to(runner.device, runner.dtype))
    return ", ".join(runner.decode([i]).strip() for i in logits.topk(n).indices.tolist())


def _ranked(row: LatentEntry) -> RankedLatent:
    fields: dict[str, Any] = {name: _missing_as_nan(name, value) for name, value in row}
    fields["top"] = tuple(row.top)
    return RankedLatent(**fields)


def _missing_as_nan(name: str, value: Any) -> Any:
    return float("nan") if value is None and name != "label" else value


def _plain(row: RankedLatent) -> dict[str, Any]:
    """Return a latent's fields as stored in JSON, with None for nan."""
    entry = {
        k: v
        for k, v in asdict(RankedLatent(**{**row.__dict__, "sae": None})).items()
        if k not in ("sae", "label_source")
    }
    entry["top"] = [[a, t] for a, t in row.top]
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in entry.items()}
