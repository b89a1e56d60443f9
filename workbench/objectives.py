"""What a prompt is optimised for: differentiable functions of one forward pass, that add and scale.

An `Objective` says which sites it reads and whether it needs the end of the model; given a `Readout` (the decision token of
each context) it returns one score a row. Prompt-level terms (repetition, similarity to a text) see the prompt's ids instead.

Two guards keep a score honest (REFERENCES of arXiv 2601.02896's code: a raw projection was won by a residual of 130 times
the usual norm):
1. *Scale*: `calibrate` measures the score's mean and spread over neutral prompts, so that a z-scored objective has the same
   unit in every model, and one fluency weight means the same everywhere.
2. *Norm*: residuals longer than those of neutral prompts are shortened to the longest usual norm before they are projected.

Sign: plus is more of the persona; `-objective` suppresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.answer_tokens import LOG_ODDS, MATCHING, OTHER, AnswerTable
from workbench.contexts import Contexts, allowed_ids
from workbench.errors import UserError
from workbench.html_text import ShowsFacts
from workbench.models import Runner, Site, not_finite, pad_right, runner_for
from workbench.objective_words import describe, objective_words


@dataclass(frozen=True)
class Readout:
    """The decision tokens of a batch.

    resid: float32 activations by site. final: the residual after the last block (None unless requested). answers: first token of the
    matching and the not matching answer, a row each. whole: how the answers are read where they are more than one token each (None
    otherwise).
    """

    resid: dict[Site, Float[Tensor, "batch d_model"]]
    final: Float[Tensor, "batch d_model"] | None
    answers: Int[Tensor, "batch 2"]
    runner: Runner
    whole: WholeAnswers | None = None

    @classmethod
    def of(
        cls,
        runner: Runner,
        caught: Mapping[Site, Float[Tensor, "batch pos d_model"]],
        stream: Float[Tensor, "batch pos d_model"] | None,
        decision: Int[Tensor, " batch"],
        table: AnswerTable,
        members: Sequence[int] | Tensor,
    ) -> Readout:
        """The readout of a run.

        Args:
            runner: the model.
            caught: activations at the sites, all positions (or the decision token alone).
            stream: residuals after the last block, or None where no objective needs them.
            decision: position of each row's decision token.
            table: the answers of (branched) contexts.
            members: each row's context in the table.
        """
        members = torch.as_tensor(members, device=decision.device)
        rows = torch.arange(len(decision), device=decision.device)

        def at_decision(activation: Tensor) -> Tensor:
            return activation[:, 0] if activation.shape[1] == 1 else activation[rows, decision]

        whole = None if stream is None or table.one_token else WholeAnswers(stream, decision, table, members.cpu())
        read = {site: at_decision(activation).float() for site, activation in caught.items()}
        return cls(read, None if stream is None else at_decision(stream), table.first[members], runner, whole)

    def answer_scores(self, sides: tuple[float, float]) -> Float[Tensor, " batch"]:
        """Weighted sum of the two answers' scores (`answer_tokens`), nats. UserError where the last block's residuals were not kept."""
        if self.whole is not None:
            return self.whole.table.scores(self.runner, self.whole.stream, self.whole.decision, self.whole.members, sides)
        assert self.final is not None, "an objective that reads answers needs the last block's residuals (`needs_final`)"
        if sides == LOG_ODDS:
            logits = self.runner.logits_of(self.final, self.answers)
            return logits[:, 0] - logits[:, 1]
        side = sides.index(1.0)
        chosen = self.answers[:, side : side + 1]
        return (self.runner.logits_of(self.final, chosen) - self.runner.log_normalizer(self.final)[:, None])[:, 0]


@dataclass(frozen=True)
class WholeAnswers:
    """Where the tokens of a batch's answers are read. stream: residuals after the last block. members: rows' contexts in the table."""

    stream: Float[Tensor, "batch pos d_model"]
    decision: Int[Tensor, " batch"]
    table: AnswerTable
    members: Int[Tensor, " batch"]


class Objective(ShowsFacts):
    """A score to be maximised. Objectives add, and are multiplied by numbers; `-goal` lowers what `goal` raises.

    Example:
        >>> goal = -wb.answer_log_odds() + 0.5 * wb.RepetitionPenalty()
        >>> isinstance(goal, wb.Objective)
        True
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where activations are read."""
        return ()

    @property
    def needs_final(self) -> bool:
        """True if the logits are needed: the model is then run to its end."""
        return False

    @property
    def sign(self) -> int:
        """+1 if a higher score means more of the persona, -1 if less."""
        return 1

    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        """One float32 score a row; differentiable."""
        return readout.answers.new_zeros(len(readout.answers), dtype=torch.float32)

    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        """Terms that depend on the prompt's ids alone."""
        return torch.zeros(len(ids), device=ids.device)

    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        """This objective with its scale measured over n neutral prompts of `length` tokens; itself where it has no scale."""
        return self

    def depth(self, n_layers: int) -> int:
        """How many blocks must be run."""
        return n_layers if self.needs_final else max((site.layer + 1 for site in self.sites), default=0)

    def facts(self) -> tuple[str, dict[str, object]]:
        """What is maximised, in words."""
        words = objective_words(describe(self))
        return f"{type(self).__name__}: {words}", {"read at": ", ".join(site.name for site in self.sites)} if self.sites else {}

    def __add__(self, other: Objective) -> Objective:
        return CombinedObjective((*terms_of(self), *terms_of(other)))

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __mul__(self, weight: float) -> Objective:
        return CombinedObjective(tuple((weight * w, term) for w, term in terms_of(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0


@dataclass(frozen=True, repr=False)
class CombinedObjective(Objective):
    """A weighted sum of objectives."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(site for _, term in self.terms for site in term.sites))

    @property
    @override
    def needs_final(self) -> bool:
        return any(term.needs_final for _, term in self.terms)

    @property
    @override
    def sign(self) -> int:
        weight, term = self.terms[0]
        return term.sign if weight >= 0 else -term.sign

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return torch.stack([weight * term.score(readout) for weight, term in self.terms]).sum(0)

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        return torch.stack([weight * term.prompt_score(ids) for weight, term in self.terms]).sum(0)

    @override
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        return CombinedObjective(tuple((w, term.calibrate(model, contexts, n, length, seed)) for w, term in self.terms))


def terms_of(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    """The objectives that a sum is made of, with their weights; the objective itself with weight 1."""
    return objective.terms if isinstance(objective, CombinedObjective) else ((1.0, objective),)


@dataclass(frozen=True)
class ObjectiveScale:
    """Mean and spread (over neutral prompts, of the mean over contexts) of a score, and the longest usual residual norm."""

    mean: float = 0.0
    sd: float = 1.0
    norm_limit: float = float("inf")


class _Scaled(Objective):
    """An objective with a unit: (raw - mean) / sd, the residual's norm guarded."""

    scale: ObjectiveScale

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        raise NotImplementedError

    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return (self.raw(readout) - self.scale.mean) / self.scale.sd

    def guarded(self, resid: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """The residual, shortened to the norm limit where it is longer."""
        if self.scale.norm_limit == float("inf"):
            return resid
        return resid * (self.scale.norm_limit / resid.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)

    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        runner = runner_for(model)
        neutral = neutral_prompts(runner, contexts, n, length, seed)
        plain = replace(self, scale=ObjectiveScale())  # type: ignore[type-var]
        readouts = [read(runner, plain, contexts, prompt) for prompt in neutral]
        norms = torch.cat([r.resid[site].norm(dim=-1) for r in readouts for site in self.sites] or [torch.zeros(1)])
        limit = 1.1 * float(norms.max()) if self.sites else float("inf")
        means = torch.stack([plain.raw(r).mean() for r in readouts]).double()
        sd = float(means.std())
        if not sd > 1e-9:
            raise UserError("the objective does not move over neutral prompts: nothing to scale it by (latents that never fire?)")
        return replace(self, scale=ObjectiveScale(float(means.mean()), sd, limit))  # type: ignore[type-var]


Kind = Literal["z", "raw", "cosine"]


@dataclass(frozen=True, repr=False)
class ProjectionObjective(_Scaled):
    """Residual at a site, projected on a unit vector.

    kind "raw": in units of the residual, no guard; "cosine": divided by the residual's norm; "z": standard deviations over neutral prompts
    after `calibrate`, with the norm guard.
    """

    vector: Float[Tensor, " d_model"] = field(repr=False)
    site: Site
    kind: Kind = "z"
    scale: ObjectiveScale = ObjectiveScale()

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Along the unit vector, in units of the residual stream; as a cosine, -1 to 1, for that kind."""
        resid = readout.resid[self.site].float()
        unit = self.vector.to(resid.device, torch.float32)
        if self.kind == "cosine":
            return torch.nn.functional.normalize(resid, dim=-1) @ unit
        return self.guarded(resid) @ unit

    @override
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        return super().calibrate(model, contexts, n, length, seed) if self.kind == "z" else self


def projection(direction: Any, kind: Kind = "z") -> ProjectionObjective:
    """RESGA's objective: the decision token's residual along a direction; plus = more persona.

    Args:
        direction: A `Direction` (anything with `vector` and `site`).
        kind: "z": in standard deviations over neutral prompts, after `.calibrate(model, contexts)`; "raw": in units of the
            residual stream; "cosine": -1 to 1. See `workbench.objectives.Kind`.

    Returns:
        An objective. Source: arXiv 2601.02896, with the corrections that docs/paper_study.md names.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
    """
    vector = torch.as_tensor(direction.vector, dtype=torch.float32)
    return ProjectionObjective(vector / vector.norm(), replace(direction.site, position="decision"), kind)


class LatentReader(Protocol):
    """The part of an SAE that an objective uses."""

    @property
    def site(self) -> Site:
        """Where it reads."""
        ...

    def encode_some(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """Activations of a few latents."""
        ...

    def pre_activations(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """What goes into their non-linearity."""
        ...


@dataclass(frozen=True, repr=False)
class LatentActivationObjective(_Scaled):
    """Weighted sum of latents' activations.

    A latent that is off has no gradient of its own, so the gradient goes through the pre-activation while the score is the activation
    (straight-through).
    """

    sae: LatentReader = field(repr=False)
    latents: tuple[int, ...]
    weights: tuple[float, ...]
    scale: ObjectiveScale = ObjectiveScale()

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return (replace(self.sae.site, position="decision"),)

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Weighted sum of activations, in the latents' unit."""
        resid = self.guarded(readout.resid[self.sites[0]].float())
        activation = self.sae.encode_some(resid, self.latents)
        if resid.requires_grad:
            before = self.sae.pre_activations(resid, self.latents)
            activation = activation.detach() + before - before.detach()
        return activation.float() @ torch.tensor(self.weights, device=resid.device)


def latent_activation(sae: LatentReader, latents: Sequence[int], weights: Sequence[float] | None = None) -> LatentActivationObjective:
    """SAEGA's objective: signed weighted SAE latents at the decision token; plus = more persona.

    Args:
        sae: The SAE that reads the latents (`load_sae`).
        latents: Numbers of the latents.
        weights: One number per latent; 1 each when None.

    Returns:
        An objective, in the unit of the latents' activations times the weights.

    Example:
        >>> goal = wb.latent_activation(sae, latents.ids, latents.weights)
        >>> goal == latents.objective(sae)
        True
    """
    weights = [1.0] * len(latents) if weights is None else list(weights)
    if len(weights) != len(latents) or not latents:
        raise UserError(f"expected one weight for each latent, found {len(latents)} latents and {len(weights)} weights")
    return LatentActivationObjective(sae, tuple(int(i) for i in latents), tuple(float(w) for w in weights))


@dataclass(frozen=True, repr=False)
class AnswerLogOddsObjective(_Scaled):
    """Score of the matching answer minus that of the other one, whole answers: the log-odds that `answer` reports, in nats."""

    scale: ObjectiveScale = ObjectiveScale()

    @property
    @override
    def needs_final(self) -> bool:
        return True

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Matching minus not matching answer, nats."""
        return readout.answer_scores(LOG_ODDS)


def answer_log_odds() -> AnswerLogOddsObjective:
    """The behaviour itself as objective: the control that says what looking inside the model buys.

    Returns:
        An objective whose score is the log-odds (nats) of the matching answer.

    Example:
        >>> goal = -wb.answer_log_odds()      # lowers the persona
    """
    return AnswerLogOddsObjective()


@dataclass(frozen=True, repr=False)
class AnswerLogProbObjective(Objective):
    """Log-probability (nats) of one whole answer: the objective of GCG.

    Attributes:
        side: 0: the matching answer; 1: the not matching one.

    Example:
        >>> found = wb.search(model, wb.AnswerLogProbObjective(), contexts, wb.GCG(length=4, children=8), wb.Budget(steps=1))
        >>> len(found.candidates) > 0
        True
    """

    side: int = 0

    @property
    @override
    def needs_final(self) -> bool:
        return True

    @property
    @override
    def sign(self) -> int:
        return 1 if self.side == 0 else -1

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return readout.answer_scores(MATCHING if self.side == 0 else OTHER)


@dataclass(frozen=True, repr=False)
class HoldObjective(Objective):
    """Minus the squared distance of another objective's score from a value: 0 is best.

    Attributes:
        inner: The objective whose score is held.
        value: Where it is held, in the unit of `inner`.

    Example:
        >>> wb.HoldObjective(wb.answer_log_odds(), value=0.0).value
        0.0
    """

    inner: Objective
    value: float

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return self.inner.sites

    @property
    @override
    def needs_final(self) -> bool:
        return self.inner.needs_final

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        if readout.whole is not None and readout.whole.table.n_branches > 1 and self.inner.needs_final:
            raise UserError("an answer of several tokens cannot be held at a value: hold a direction or latents, or use one-token answers")
        return -((self.inner.score(readout) - self.value) ** 2)

    @override
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        return replace(self, inner=self.inner.calibrate(model, contexts, n, length, seed))


def hold_direction(direction: Any) -> HoldObjective:
    """Keep another direction's z-scored reading at its mean over neutral prompts: 0 is best, -1 is one SD away.

    Args:
        direction: A `Direction` (anything with `vector` and `site`).

    Returns:
        An objective; `.calibrate(model, contexts)` measures the mean and SD.

    Example:
        >>> goal = -wb.answer_log_odds() + wb.hold_direction(direction)
    """
    return HoldObjective(projection(direction), 0.0)


@dataclass(frozen=True, repr=False)
class RepetitionPenalty(Objective):
    """Minus the fraction of the prompt's tokens that occurred before in it: 0 is best.

    Example:
        >>> wb.RepetitionPenalty().prompt_score(torch.tensor([[5, 6, 5, 7]])).tolist()
        [-0.25]
    """

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        same = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)
        return -same.float().mean(-1)


@dataclass(frozen=True, repr=False)
class TextSimilarity(Objective):
    """Fraction of positions at which the prompt's token is the reference's, 0 to 1.

    Attributes:
        reference: Token ids of the reference prompt.

    Example:
        >>> wb.TextSimilarity((5, 6)).prompt_score(torch.tensor([[5, 7]])).tolist()
        [0.5]
    """

    reference: tuple[int, ...]

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        width = min(ids.shape[1], len(self.reference))
        same = ids[:, :width] == torch.tensor(self.reference[:width], device=ids.device)
        return same.float().sum(-1) / max(ids.shape[1], len(self.reference))


def neutral_prompts(model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> list[tuple[int, ...]]:
    """Prompts that are about nothing, to calibrate an objective's scale.

    One half is random allowed tokens, the other half the model's own text in the slot, sampled at temperature 1 from allowed tokens.

    Args:
        model: A loaded model or its runner.
        contexts: Where the prompts are put.
        n: How many prompts.
        length: Tokens of each.
        seed: Of the draws.

    Returns:
        n prompts as token ids.

    Example:
        >>> [len(ids) for ids in wb.neutral_prompts(model, contexts, n=2, length=5)]
        [5, 5]
    """
    runner = runner_for(model)
    generator = torch.Generator().manual_seed(seed)
    allowed = allowed_ids(runner)
    choices = torch.nonzero(allowed)[:, 0]
    drawn = choices[torch.randint(len(choices), (n - n // 2, length), generator=generator)]
    prompts = [tuple(row) for row in drawn.tolist()]
    if n // 2:
        prefix = torch.tensor([contexts[0].prefix_ids]).expand(n // 2, -1)
        text = runner.generate(prefix, length, temperature=1.0, generator=generator, banned=~allowed)
        prompts += [tuple(row) for row in text.tolist()]
    return prompts


@torch.no_grad()
def read(model: Any, objective: Objective, contexts: Contexts, prompt_ids: Sequence[int] | None) -> Readout:
    """The readout of every context with one prompt (None: bare).

    A readout of every branch ( where answers need more than one) with one prompt (None: bare), in the order of the
    contexts; plain passes, no sharing. UserError where a score is no finite number.
    """
    runner = runner_for(model)
    branched = contexts.branched if objective.needs_final else contexts
    rows = [c.sequence(prompt_ids) for c in branched]
    decision = torch.tensor([len(c.ids(prompt_ids)) - 1 for c in branched], device=runner.device)
    with runner.capture(objective.sites) as caught:
        resid, _ = runner.run(runner.embed(pad_right(rows).to(runner.device)), 0, objective.depth(runner.shape.n_layers))
    table = AnswerTable(branched, runner.device)
    stream = resid if objective.needs_final else None
    found = Readout.of(runner, caught, stream, decision, table, range(len(rows)))
    values = [*found.resid.values(), *([] if found.final is None else [found.final])]
    bad = next((int((~v.isfinite()).any(-1).nonzero()[0, 0]) for v in values if not v.isfinite().all()), None)
    if bad is not None:
        raise UserError(f"the question {branched[bad].item.question[:60]!r} gives values that are no finite numbers: {not_finite(runner, rows[bad])}")
    return found
