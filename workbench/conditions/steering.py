"""Activation steering: add a direction to the residual stream while the model answers without a prompt.

The methods are CAA (Rimsky et al. 2024) and persona vectors (Chen et al. 2025). The positions are all tokens,
the prompt's tokens, the decision token (the last before the answer), or all tokens from the decision token
on. Conditional steering (arXiv 2604.08169) changes only projections beyond a limit.

The strength is chosen on *selection* data only:
1. The unit is the mean norm of the residual stream at the site over the selection contexts, so that one grid
   fits every model.
2. The model answers the selection questions at every strength of the grid.
3. A guard drops strengths that break the model: the two answers must keep half of the probability that they
   have without steering, and the cross-entropy of the questions' own text must not rise much.
4. Of the others, the strength with the largest mean log-odds in the sign's direction is chosen; on ties the
   weaker one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.activations import collect
from workbench.budget import Cost
from workbench.conditions.build_context import BuildContext
from workbench.conditions.capability_guard import CapabilityGuard
from workbench.conditions.condition import Condition, as_contexts, signed, spending
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.contexts import Contexts, Slot
from workbench.directions import Direction, LayerScanOptions, find_directions
from workbench.forced_choice import Answers, answer
from workbench.interventions import Positions, limit, steer
from workbench.personas import Sign, Split

#: Strengths to try, in units of the mean norm of the residual stream.
GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Steering(Condition):
    """Steering vector as a condition: coefficient x unit direction is added to the residual stream.

    The layer and hook are those of the direction. With `conditional`, the projection of the residual stream
    on the direction is instead kept on one side of a limit.

    Attributes:
        direction: The persona's direction.
        coefficient: What is added, in units of the residual stream (plus = more of the persona); with
            `conditional`, the limit of the projection.
        positions: Token positions: "all", "prompt", "decision" (the last token before the answer) or "answer"
            (from the decision token on).
        conditional: Whether to hold the projection within a limit instead of adding a constant.
        side: With `conditional`, -1 makes the coefficient an upper limit of the projection and +1 a lower
            limit.
        name: Name in tables.
        kind: Kind of condition, "steering".
        method: How the coefficient was chosen, in words.
        selection_rate: Fraction of the selection questions that the model answers as the persona under the
            steering.
        cost: Cost of the tuning.

    Example:
        >>> tuned = wb.Steering(direction).tune(model, contexts, "suppress")
        >>> tuned.coefficient <= 0
        True
    """

    direction: Direction
    coefficient: float = 0.0
    positions: Positions = "all"
    conditional: bool = False
    side: int = -1
    name: str = ""
    kind: str = "steering"
    method: str = ""
    selection_rate: float | None = None
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        label = "conditional steering" if self.conditional else "steering"
        if not self.name:
            object.__setattr__(
                self, "name", label if self.positions == "all" else f"{label} at {self.positions}"
            )
        if not self.method:
            object.__setattr__(
                self,
                "method",
                f"{self.direction.name}, coefficient {self.coefficient:.4g}, positions {self.positions}",
            )

    def edit(self, model: Any) -> AbstractContextManager[None]:
        """Return a context manager; the steering acts on every run of the model inside the block."""
        if self.conditional:
            return limit(model, self.direction, self.coefficient, self.side, self.positions)
        return steer(model, self.direction, self.coefficient, self.positions)

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return log-odds of the answers that show the persona, with steering and without a prompt."""
        with self.edit(model):
            return answer(model, contexts)

    def tune(
        self,
        model: Any,
        selection: Split | Contexts,
        sign: Sign = "suppress",
        grid: Sequence[float] = GRID,
        guard: CapabilityGuard | None = None,
        slot: Slot = "system",
    ) -> Steering:
        """Return this steering at the strength that has the largest effect on the selection questions.

        The effect is the mean log-odds of the answers that show the persona, negated for "suppress".

        Args:
            model: A loaded model or its runner.
            selection: Questions by which the strength is chosen.
            sign: Whether to "suppress" or "induce" the persona.
            grid: Strengths to try, in units of the mean norm of the residual stream; values that are not
                positive are ignored.
            guard: Limits on side effects; None for the default `CapabilityGuard`.
            slot: The place in the chat where a prompt would go; used to make contexts of a split.

        Returns:
            The steering with the chosen coefficient, its cost, and its rate (fraction of questions answered
            as the persona).

        Raises:
            UserError: Every strength exceeds a limit on side effects.
        """
        contexts = as_contexts(model, selection, slot)
        with spending(model, contexts) as receipt:
            norm = residual_norm(model, self.direction, contexts)
            watch = (guard or CapabilityGuard()).watching(model, contexts)
            tried = [self._at(strength * norm, sign) for strength in grid if strength > 0]
            best, answers, dropped = watch.strongest(model, contexts, tried, sign)
        method = f"{best.method}, best of {len(tried)} on selection, {dropped} dropped by the guard (residual norm {norm:.4g})"
        return replace(best, method=method, selection_rate=answers.rate, cost=receipt.cost)

    def _at(self, strength: float, sign: Sign) -> Steering:
        if not self.conditional:
            return replace(self, coefficient=signed(sign) * strength, method="")
        threshold = self.direction.threshold + signed(sign) * strength
        return replace(self, coefficient=threshold, side=signed(sign), method="")


def residual_norm(model: Any, direction: Direction, contexts: Contexts) -> float:
    """Return the mean norm of the residual stream at the layer and hook where a direction is read.

    It is measured at the decision token (the last token before the answer) of each question without a prompt.
    """
    site = direction.site
    return float(collect(model, [c.bare_ids for c in contexts], [site])[site].norm(dim=-1).mean())


def _own(positions: Positions, conditional: bool = False) -> Callable[[BuildContext], list[Steering]]:
    """Return a function that builds steering along the study's own direction."""

    def build(context: BuildContext) -> list[Steering]:
        return [_tuned(Steering(context.direction, positions=positions, conditional=conditional), context)]

    return build


def _published(method: str, name: str) -> Callable[[BuildContext], list[Steering]]:
    """Return a function that builds steering along a published method's direction at the study's layer."""

    def build(context: BuildContext) -> list[Steering]:
        study, splits, s = context.study, context.splits, context.study.directions
        sizes = {
            "n": s.rows,
            "n_texts": s.texts,
            "n_contexts": s.contexts,
            "slot": study.slot,
            "seed": study.seed,
        }
        options = LayerScanOptions(orders=study.protocol.orders)
        layer = (context.direction.site.layer,)
        scan = find_directions(
            context.model, splits.train, splits.search, layer, (method,), **sizes, options=options
        )
        return [_tuned(Steering(scan.best, name=name), context)]

    return build


def _tuned(steering: Steering, context: BuildContext) -> Steering:
    return steering.tune(context.model, context.selection_contexts, context.sign, guard=context.guard)


register_kind(ConditionKind("steering", "inside", "the direction added to the activations"))
for _condition in (
    StudyCondition(
        "steering",
        "steering",
        "the study's direction added everywhere",
        _own("all"),
        is_default=True,
        order=100,
    ),
    StudyCondition(
        "steering_prompt", "steering", "added at the prompt's tokens only", _own("prompt"), order=120
    ),
    StudyCondition(
        "steering_decision", "steering", "added at the decision token only", _own("decision"), order=130
    ),
    StudyCondition(
        "conditional_steering",
        "steering",
        "readings held within a limit",
        _own("all", conditional=True),
        order=140,
    ),
    StudyCondition(
        "steering_caa",
        "steering",
        "mean difference at the answer (Rimsky et al.)",
        _published("mean_difference", "CAA steering"),
        order=150,
    ),
    StudyCondition(
        "steering_persona_vector",
        "steering",
        "mean over response tokens (Chen et al.)",
        _published("response_mean", "persona vector steering"),
        order=160,
    ),
):
    register_study_condition(_condition)
