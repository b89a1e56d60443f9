"""The base of all objectives: sums, weights, and a scale measured over neutral prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.answer_tokens import AnswerTable
from workbench.contexts import Contexts, allowed_ids
from workbench.errors import UserError
from workbench.models import Site, not_finite, pad_right, runner_for
from workbench.objectives.readout import Readout


class Objective:
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

    def __add__(self, other: Objective) -> Objective:
        return CombinedObjective((*terms_of(self), *terms_of(other)))

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __mul__(self, weight: float) -> Objective:
        return CombinedObjective(tuple((weight * w, term) for w, term in terms_of(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0


@dataclass(frozen=True)
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


#: No scale was measured: the score is in the raw unit.
UNSCALED = ObjectiveScale()


class ScaledObjective(Objective):
    """An objective with a unit: (raw - mean) / sd, the residual's norm guarded."""

    scale: ObjectiveScale

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """The score in its own unit; subclasses say which."""
        raise NotImplementedError

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return (self.raw(readout) - self.scale.mean) / self.scale.sd

    def guarded(self, resid: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """The residual, shortened to the norm limit where it is longer."""
        if self.scale.norm_limit == float("inf"):
            return resid
        return resid * (self.scale.norm_limit / resid.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)

    @override
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        runner = runner_for(model)
        neutral = neutral_prompts(runner, contexts, n, length, seed)
        plain = replace(self, scale=UNSCALED)  # type: ignore[type-var]
        readouts = [read(runner, plain, contexts, prompt) for prompt in neutral]
        norms = torch.cat([r.resid[site].norm(dim=-1) for r in readouts for site in self.sites] or [torch.zeros(1)])
        limit = 1.1 * float(norms.max()) if self.sites else float("inf")
        means = torch.stack([plain.raw(r).mean() for r in readouts]).double()
        sd = float(means.std())
        if not sd > 1e-9:
            raise UserError("the objective does not move over neutral prompts: nothing to scale it by (latents that never fire?)")
        return replace(self, scale=ObjectiveScale(float(means.mean()), sd, limit))  # type: ignore[type-var]


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
    """The readout of every context (of every branch, where answers need more than one) with one prompt (None: bare), in the order of the
    contexts; plain passes, no sharing. UserError where a score is no finite number."""
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
