"""The state of a running search: what `on_step` is told, and the rows of a frontier's history."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.budget import Budget, Cost
from workbench.search.scored_prompts import ScoredPrompts
from workbench.search.search_state import SearchState


@dataclass(frozen=True)
class SearchProgress:
    """After each step.

    used: fraction of the budget, 0 to 1. best_objective, best_cross_entropy: of the strongest prompt so far.
    candidates_per_second: children scored a second. model_calls, seconds: spent, resumed parts included.
    seconds_left: at this pace, None before there is one. frontier: all prompts that nothing beats so far,
    most fluent first.
    """

    step: int
    used: float
    best_objective: float
    best_cross_entropy: float
    candidates_per_second: float
    model_calls: float
    seconds: float
    seconds_left: float | None
    frontier: ScoredPrompts


def progress_of(state: SearchState, cost: Cost, budget: Budget) -> SearchProgress:
    """The state after its last step."""
    assert state.archive is not None, "a step fills the archive"
    row = state.history[-1]
    used = min(1.0, budget.used(cost, state.step))
    left = cost.seconds * (1 - used) / used if used > 0 else None
    rate = row["candidates"] / max(cost.seconds, 1e-9)
    return SearchProgress(
        state.step,
        used,
        row["best_objective"],
        row["best_cross_entropy"],
        rate,
        cost.model_calls,
        cost.seconds,
        left,
        state.archive,
    )


def history_row(state: SearchState, cost: Cost) -> dict[str, float]:
    """One row of the history.

    best_objective, best_cross_entropy: of the archive's strongest prompt. candidates: children scored since
    the start. population: distinct prompts in it. frontier: prompts on it.
    """
    assert state.archive is not None, "a step fills the archive"
    best = int(state.archive.objective.argmax())
    return {
        "step": state.step,
        "seconds": cost.seconds,
        "model_calls": cost.model_calls,
        "forward": cost.forward,
        "backward": cost.backward,
        "flops": cost.flops,
        "candidates": state.candidates,
        "best_objective": float(state.archive.objective[best]),
        "best_cross_entropy": float(state.archive.cross_entropy[best]),
        "population": len({tuple(row) for row in state.population.tolist()}),
        "frontier": len(state.archive),
    }
