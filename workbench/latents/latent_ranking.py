"""Which latents of an SAE carry a persona: ranked by effect size, judged on groups that did not rank them.

1. Train contexts are labelled like a direction's data (directions/labelled_activations.py): by the model's
   own choice under varied system texts at the decision token, compared within contexts ("choice_within", the
   default: each context's mean is taken off, so that only what the texts do is left) or between them
   ("choice"); or by matching against not matching answer at the answer token ("answer", as published). The
   SAE encodes the activations.
2. The question groups are cut into two halves. On the first, each latent's effect size is Cohen's d:
   difference of its mean activation between the two sides over their pooled standard deviation. Latents that
   fire in fewer than `least` of the rows are passed over.
3. The k latents of the largest |d| whose sign is the same on the second half are kept; effect size and AUC in
   the table are those of the second half. A latent's weight is its signed mean difference over all rows, plus
   = more of the persona.

rule="percentile" is the paper's own (arXiv 2601.02896): every latent whose |mean difference| is above the
99th percentile.
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
    """One latent.

    weight: signed mean difference of its activation. effect_size: Cohen's d, auc: both on held-out groups.
    density: fraction of the tokens of the train questions, as the model meets them, on which it is active
    (the first token of each is not counted). decision_share: fraction of the ranking rows in which it is
    active at their one token. mean, max_activation: over all rows. label: the tokens its decoder row
    promotes, or a user's name for it; label_source: that user ("" for the tokens). top: the contexts in which
    it fires most, with its activation there.
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
        """Its name, such as `latent 17`."""
        return f"latent {self.latent}"

    def facts(self) -> tuple[str, dict[str, object]]:
        """What is known of the latent."""
        fires = {"fires most in": self.top[0][1]} if self.top else {}
        numbers: dict[str, object] = {
            "weight": self.weight,
            "AUC": self.auc,
            "effect size": self.effect_size,
            "density": self.density,
        }
        return f"{self.name.capitalize()} ({self.label or 'no label'})", numbers | fires

    def objective(self) -> LatentActivationObjective:
        """The latent's activation at the decision token as an objective. UserError if it was read from a file, without its SAE."""
        if self.sae is None:
            raise UserError(
                f"{self.name} came from a file without its SAE: use latent_activation(sae, [{self.latent}])"
            )
        return latent_activation(self.sae, [self.latent])


@dataclass(frozen=True, repr=False)
class LatentRanking:
    """The kept latents, the most telling first.

    labels, rule: how they were found. check: how the SAE reconstructs the train questions as the model meets
    them; None in a file of an earlier version.
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
        """The latents' numbers."""
        return [row.latent for row in self.latents]

    @property
    def weights(self) -> list[float]:
        """Their signed weights: plus = fires more where the persona is shown."""
        return [row.weight for row in self.latents]

    @property
    def table(self) -> pd.DataFrame:
        """One row per latent."""
        rows = [
            {k: v for k, v in _plain(row).items() if k != "top"}
            | {"fires_most_in": row.top[0][1] if row.top else ""}
            for row in self.latents
        ]
        return pd.DataFrame(rows).rename(columns={"density": DENSITY_HEADER})

    def labelled(self, labels: Mapping[int, str], source: str = "the user") -> LatentRanking:
        """The same ranking with what a user calls its latents (`wb.latent_labels`), by number; the others keep the tokens they raise."""
        own = [
            replace(row, label=labels[row.latent], label_source=source) if row.latent in labels else row
            for row in self.latents
        ]
        return replace(self, latents=tuple(own))

    def objective(self, sae: Sae) -> LatentActivationObjective:
        """SAEGA's objective: the weighted sum of their activations."""
        return latent_activation(sae, self.ids, self.weights)

    def to_file(self) -> LatentsFile:
        """latents.json."""
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
        """The ranking that `to_file` wrote; its latents come without their SAE."""
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
    """Options of a ranking of latents.

    Attributes:
        least: Smallest fraction of the rows in which a latent must be active to be considered.
        orders: Orders in which options are shown.
        texts: Train questions on which density and the reconstruction check are read.

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
    """The latents that distinguish the persona best; the module's text has the steps.

    Args:
        model: A loaded model or its runner.
        sae: The SAE.
        train: A split, whose questions the model is run on, or activations that you already have
            (`LabelledCache`; labels "choice_within" needs its `contexts`; there is no reconstruction check
            and no density then).
        k: How many latents are kept.
        labels: "choice_within": the model's own choices, compared within contexts; "choice": between them;
            "answer": matching against not matching answer, as published.
        rule: "effect": by Cohen's d on held-out groups; "percentile": the paper's.
        n: Rows of data.
        slot: Where varied system texts are put.
        seed: Of the draws and the halves.
        options: Everything else.

    Returns:
        The kept latents, best first, with their signed weights.

    Raises:
        UserError: SAE and model do not fit, an unknown rule, k below 1, or no latent distinguishes anything.

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
    """Own-choice data at a layer from two splits, for the card of an SAE (best latent's held-out AUC)."""
    draw = ActivationSampler(runner_for(model), [layer], slot, seed)
    a, b = (draw.labelled(split, "choice", n) for split in (train, held_out))
    return TrainingProbe(
        a.states[layer], positive(a.scores).numpy(), b.states[layer], positive(b.scores).numpy()
    )


def effect_sizes(activations: Float[Tensor, "n d_sae"], shown: Bool[Tensor, " n"]) -> Float[Tensor, " d_sae"]:
    """Cohen's d of every latent, plus = fires more where the persona is shown; 0 where it does not vary or a side is missing."""
    a, b = activations[shown].double(), activations[~shown].double()
    if len(a) < 2 or len(b) < 2:
        return torch.zeros(activations.shape[1], dtype=torch.float64)
    pooled = ((len(a) - 1) * a.var(dim=0) + (len(b) - 1) * b.var(dim=0)) / (len(a) + len(b) - 2)
    difference = a.mean(dim=0) - b.mean(dim=0)
    return torch.where(pooled > 0, difference / pooled.clamp(min=1e-30).sqrt(), torch.zeros_like(difference))


def group_halves(groups: Sequence[str], seed: int) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Row masks of two halves of the groups, dealt by seed. UserError with fewer than two groups."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"ranking needs at least 2 question groups to hold one half out, found {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    first = torch.from_numpy(np.isin(index, order[: (len(names) + 1) // 2]))
    return first, ~first


@dataclass(frozen=True)
class _Rows:
    """Encoded train rows.

    raw: activations; compared: what the two sides are compared by (within contexts: each context's mean off).
    sizes: effect sizes on the ranking half and on the held-out half.
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
        train.activations(draw.layers, labels)  # what does not fit is said before the SAE runs
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
    """The tokens whose logits the latent's decoder row raises most, read straight through the final norm (a hint, not a meaning)."""
    logits = runner.logits(sae.W_dec[latent].to(runner.device, runner.dtype))
    return ", ".join(runner.decode([i]).strip() for i in logits.topk(n).indices.tolist())


def _ranked(row: LatentEntry) -> RankedLatent:
    fields: dict[str, Any] = {name: _missing_as_nan(name, value) for name, value in row}
    fields["top"] = tuple(row.top)
    return RankedLatent(**fields)


def _missing_as_nan(name: str, value: Any) -> Any:
    return float("nan") if value is None and name != "label" else value


def _plain(row: RankedLatent) -> dict[str, Any]:
    """A latent's fields as JSON holds them; nan becomes None."""
    entry = {
        k: v
        for k, v in asdict(RankedLatent(**{**row.__dict__, "sae": None})).items()
        if k not in ("sae", "label_source")
    }
    entry["top"] = [[a, t] for a, t in row.top]
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in entry.items()}
