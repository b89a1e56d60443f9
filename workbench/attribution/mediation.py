"""Mediation: how much of the prompt's effect on the answer goes through a direction or through some latents.

1. Run every context with the prompt and without it; keep the residual stream at the mediator's site.
2. The mediator's component of a residual is its projection on the direction, or the decoded activations of
   the latents.
3. *Into*: run without the prompt, but with the prompted run's component at the read positions. The gain of
   the answer's log-odds is mediated.
4. *Out of*: run with the prompt, but with the unprompted run's component. The loss of the answer's log-odds
   is mediated, measured in the opposite direction.
5. mediated = mean of both; direct = total - mediated, which bypasses the mediator.

Natural direct and indirect effects (Pearl 2001; in language models Vig et al. 2020), by interchange
interventions on a subspace (Geiger et al. 2021). Read positions: the decision token (the last token before
the answer) alone, or all tokens after the slot of the prompt, aligned from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.attribution.attribution_problem import AttributionProblem, ScoredRows
from workbench.attribution.attribution_targets import ANSWER, AttributionTarget, AttributionTargets
from workbench.errors import UserError
from workbench.html_text import ShowsFacts
from workbench.models import Site
from workbench.objectives import LatentActivationObjective, ProjectionObjective, answer_log_odds, projection
from workbench.schema import MediationEntry
from workbench.statistics import Interval, cluster_interval

Positions = Literal["decision", "question"]
Component = Callable[[Float[Tensor, "... d_model"]], Float[Tensor, "... d_model"]]


@dataclass(frozen=True)
class Mediator:
    """A component of the residual stream through which a prompt's effect may go: a direction or latents.

    Attributes:
        name: Name of the mediator in tables and sentences.
        site: Layer and hook at which the component is read and replaced.
        component: Function that computes the component of a residual, in units of the residual stream.
        unit: Unit vector of a one-dimensional component; None otherwise.
        control: Whether the component is meaningless (a random direction) and serves for comparison.
    """

    name: str
    site: Site
    component: Component
    unit: Float[Tensor, " d_model"] | None = None
    control: bool = False


@dataclass(frozen=True, repr=False)
class MediationResult(ShowsFacts):
    """How much of a prompt's effect on the answer goes through one mediator, in log-odds.

    A mediator is a direction or a set of SAE latents. All intervals are of means over contexts.

    Attributes:
        name: Name of the mediator.
        total: Whole effect of the prompt on the answer's log-odds.
        mediated: Part of the effect that goes through the mediator: the mean of `into` and `out_of`.
        direct: Part of the effect that bypasses the mediator: total - mediated.
        into: Gain of the answer's log-odds when the run without the prompt gets the mediator's component of
            the run with the prompt.
        out_of: Loss of the answer's log-odds when the run with the prompt gets the mediator's component of
            the run without the prompt.
        moved: Mean change of the component by the prompt at the decision token (the last token before the
            answer), in units of the residual stream. For a direction it has a sign; otherwise it is a length.
        along: Whether `moved` is a signed change along one direction.
        control: Whether the mediator is a random direction.
    """

    name: str
    total: Interval
    mediated: Interval
    direct: Interval
    into: Interval
    out_of: Interval
    moved: float
    along: bool = True
    control: bool = False

    @property
    def share(self) -> float | None:
        """Mediated effect as a fraction of the total; None if the total's interval contains zero."""
        if self.total.low <= 0 <= self.total.high:
            return None
        return self.mediated.estimate / self.total.estimate

    @property
    def verdict(self) -> str:
        """Result in one sentence: how much of the prompt's effect goes through the mediator."""
        if self.share is None:
            return f"The prompt's effect on the answer may be zero ({self.total}), so nothing can be said to go through the {self.name}."
        return (
            f"The prompt moves {self._by}, which {self._explains}: "
            f"{self.mediated} of {self.total} in log-odds go through it, {self.direct} next to it."
        )

    @property
    def _by(self) -> str:
        return (
            f"the {self.name} by {self.moved:+.3g}"
            if self.along
            else f"what the {self.name} stand for by a length of {self.moved:.3g}"
        )

    @property
    def _explains(self) -> str:
        share = self.share or 0.0
        if share < 0:
            return "works against its change of the answer"
        return (
            "more than explains its change of the answer"
            if share > 1
            else f"explains {100 * share:.0f} % of its change of the answer"
        )

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return the verdict and the whole, mediated and direct effects in log-odds as text."""
        return self.verdict, {
            "whole effect": str(self.total),
            "through it": str(self.mediated),
            "next to it": str(self.direct),
        }

    def to_entry(self) -> MediationEntry:
        """Convert the result to an entry of `mediation` in attribution.json."""
        parts = {name: getattr(self, name) for name in ("mediated", "direct", "into", "out_of")}
        ends = {
            f"{name}_{side}": end
            for name, part in parts.items()
            for side, end in zip(("low", "high"), part.to_json(), strict=True)
        }
        return MediationEntry(
            target=self.name,
            total=self.total.estimate,
            **{name: part.estimate for name, part in parts.items()},
            **ends,
            share=self.share,
            moved=self.moved,
            control=self.control,
            verdict=self.verdict,
        )


def mediate(
    problem: AttributionProblem, through: Sequence[Mediator], positions: Positions = "decision"
) -> tuple[MediationResult, ...]:
    """Measure how much of the prompt's effect on the answer's log-odds goes through each mediator.

    The cost is four forward passes per context and mediator.

    Args:
        problem: Model, prompt and contexts.
        through: The mediators: directions or sets of latents.
        positions: Where components are exchanged: "decision" for the decision token (the last token before
            the answer) alone, "question" for all tokens after the prompt.

    Returns:
        One result per mediator.

    Raises:
        UserError: `positions` is unknown.
    """
    if positions not in ("decision", "question"):
        raise UserError(f"unknown positions {positions!r}: expected 'decision' or 'question'")
    answer = replace(
        problem, targets=AttributionTargets((AttributionTarget(ANSWER, answer_log_odds()),))
    ).branched
    return tuple(_mediate(answer, mediator, positions) for mediator in through)


def mediators(targets: AttributionTargets) -> tuple[Mediator, ...]:
    """Build one mediator for each direction among the targets, and one for all latents of each SAE together.

    Args:
        targets: Targets of an attribution; those that are neither directions nor made of latents are ignored.
    """
    found = [
        as_mediator(target.name, target.objective) for target in targets.items if target.kind == "direction"
    ]
    latents: dict[int, list[LatentActivationObjective]] = {}
    for target in targets.items:
        if isinstance(target.objective, LatentActivationObjective):
            latents.setdefault(id(target.objective.sae), []).append(target.objective)
    for members in latents.values():
        together = sorted({latent for objective in members for latent in objective.latents})
        joint = replace(members[0], latents=tuple(together), weights=(1.0,) * len(together))
        found.append(as_mediator(f"{len(together)} latents", joint))
    return tuple(found)


def controls_verdict(found: Sequence[MediationResult]) -> str:
    """Describe in one sentence how much of the effect goes through random directions.

    Args:
        found: Results of a mediation analysis. Without random directions among them, or without an effect of
            the prompt, the sentence is empty.
    """
    shares = [m.share for m in found if m.control and m.share is not None]
    if not shares:
        return ""
    return (
        f"Control: {len(shares)} random directions with the spread of the model's own activations carry "
        f"{100 * min(shares):.0f} % to {100 * max(shares):.0f} % of "
        "the effect on the answer; what a direction carries speaks for it only as far as it exceeds theirs."
    )


def as_mediator(name: str, given: Any) -> Mediator:
    """Build the mediator of a direction, a projection objective or a latent objective.

    Args:
        name: Name in tables and sentences.
        given: The direction or objective.

    Returns:
        The mediator.

    Raises:
        UserError: `given` is of another type.
    """
    objective = (
        projection(given, "raw")
        if hasattr(given, "vector") and not isinstance(given, ProjectionObjective)
        else given
    )
    if isinstance(objective, ProjectionObjective):
        unit = objective.vector
        return Mediator(
            name, objective.site, lambda x: (x @ unit.to(x.device))[..., None] * unit.to(x.device), unit
        )
    if isinstance(objective, LatentActivationObjective):
        sae, latents = objective.sae, list(objective.latents)
        rows = sae.W_dec[latents].detach().float()  # type: ignore[attr-defined]
        return Mediator(
            name, objective.sites[0], lambda x: sae.encode_some(x, latents).float() @ rows.to(x.device)
        )
    raise UserError(
        f"nothing to mediate through in {name!r}: expected a direction or latents, found {type(given).__name__}"
    )


def _mediate(problem: AttributionProblem, mediator: Mediator, positions: Positions) -> MediationResult:
    names = ("prompt", "bare", "into", "out_of")
    scores = {name: np.zeros(len(problem.contexts)) for name in names}
    moved = []
    for members in problem.context_batches(copies=2):
        contexts = [problem.contexts[i] for i in members]
        rows = {
            "prompt": problem.rows(contexts, [problem.prompt] * len(members)),
            "bare": problem.rows(contexts, [None] * len(members)),
        }
        states = {name: _state(problem, mediator.site, rows[name]) for name in ("prompt", "bare")}
        width = _shared(rows, 1 if positions == "decision" else max(len(c.suffix_ids) for c in contexts))
        parts = {name: mediator.component(_aligned(states[name][0], rows[name], width)) for name in states}
        moved.append((parts["prompt"] - parts["bare"])[:, 0])
        into = _swapped(problem, mediator.site, rows["bare"], parts["prompt"] - parts["bare"], width)
        out_of = _swapped(problem, mediator.site, rows["prompt"], parts["bare"] - parts["prompt"], width)
        for name, values in (
            ("prompt", states["prompt"][1]),
            ("bare", states["bare"][1]),
            ("into", into),
            ("out_of", out_of),
        ):
            scores[name][members] = values.double().cpu().numpy()
    change = torch.cat(moved).mean(dim=0)
    length = change.norm() if mediator.unit is None else change @ mediator.unit.to(change.device)
    return _summed(problem, mediator, scores, float(length))


@torch.no_grad()
def _state(
    problem: AttributionProblem, site: Site, rows: ScoredRows
) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, " batch"]]:
    """Return the residual stream at the site, and the answer's log-odds."""
    with problem.runner.capture([site]) as caught:
        scores = problem.run(rows, problem.runner.embed(rows.ids))[:, 0]
    return caught[site].float(), scores


@torch.no_grad()
def _swapped(
    problem: AttributionProblem,
    site: Site,
    rows: ScoredRows,
    change: Float[Tensor, "batch back d_model"],
    width: Bool[Tensor, "batch back"],
) -> Float[Tensor, " batch"]:
    """Return the answer's log-odds when `change` is added to the residual stream at the aligned positions."""
    batch, places = _places(rows, width)

    def edit(activation: Tensor) -> Tensor:
        return activation.index_put(
            (batch, places), (change * width[..., None]).to(activation.dtype), accumulate=True
        )

    with problem.runner.edit(site.name, edit):
        return problem.run(rows, problem.runner.embed(rows.ids))[:, 0]


def _shared(rows: Mapping[str, ScoredRows], most: int) -> Bool[Tensor, "batch back"]:
    """Return which positions, counted back from the decision token, have the same tokens in both runs.

    The decision token itself always counts; at most `most` positions are considered.
    """
    everywhere = torch.ones(len(rows["bare"].ids), most, dtype=torch.bool)
    both = [_gather(part.ids, *_places(part, everywhere)) for part in rows.values()]
    inside = torch.stack(
        [torch.arange(most, device=r.ids.device) <= r.layout.decision[:, None] for r in rows.values()]
    ).all(dim=0)
    return ((both[0] == both[1]) & inside).cumprod(dim=1).bool() | (
        torch.arange(most, device=inside.device) == 0
    )


def _places(
    rows: ScoredRows, width: Bool[Tensor, "batch back"]
) -> tuple[Int[Tensor, "batch 1"], Int[Tensor, "batch back"]]:
    back = torch.arange(width.shape[1], device=rows.ids.device)
    places = (rows.layout.decision[:, None] - back).clamp(min=0)
    return torch.arange(len(rows.ids), device=rows.ids.device)[:, None], places


def _gather(values: Tensor, batch: Tensor, places: Tensor) -> Tensor:
    return values[batch, places]


def _aligned(
    state: Float[Tensor, "batch pos d_model"], rows: ScoredRows, width: Bool[Tensor, "batch back"]
) -> Float[Tensor, "batch back d_model"]:
    return _gather(state, *_places(rows, width))


def _summed(
    problem: AttributionProblem, mediator: Mediator, scores: Mapping[str, np.ndarray], moved: float
) -> MediationResult:
    total = scores["prompt"] - scores["bare"]
    into, out_of = scores["into"] - scores["bare"], scores["prompt"] - scores["out_of"]
    mediated = (into + out_of) / 2
    values = (total, mediated, total - mediated, into, out_of)
    intervals = [cluster_interval(v, problem.contexts.groups) for v in values]
    return MediationResult(
        mediator.name, *intervals, moved=moved, along=mediator.unit is not None, control=mediator.control
    )
