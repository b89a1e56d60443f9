"""Progress of a running search: the argument of `on_step`, and the rows of a frontier's history."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from workbench.budget import Budget, Cost
from workbench.search.scored_prompts import ScoredPrompts
from workbench.search.search_state import SearchState


@dataclass(frozen=True)
class SearchProgress:
    """Progress of a search after a step.

    Attributes:
        step: Number of steps done.
        used: Fraction of the budget, 0 to 1.
        best_objective: Highest objective of a prompt so far.
        best_cross_entropy: Cross-entropy of that prompt, nats per token.
        candidates_per_second: Prompts scored per second.
        model_calls: Model calls spent; if the search was resumed, those before the interruption are included.
        seconds: Seconds spent; if the search was resumed, those before the interruption are included.
        seconds_left: Estimate of the remaining seconds at this rate; None before the rate is known.
        frontier: The Pareto frontier of all prompts so far, most fluent first.
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
    """Return a search's progress after its last step, which `search` passes to the user's callback `on_step`.

    Args:
        state: State of the search.
        cost: Seconds, model calls and FLOPs so far.
        budget: The search's budget.
    """
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
    """Return one row of the search's history, the table with one row per step.

    The prompt with the highest objective so far gives best_objective and best_cross_entropy. Counts are:
    candidates (prompts scored since the start), population (different prompts kept for the next step) and
    frontier (prompts on the Pareto frontier). The other columns are the step's number and the cost so far.

    Args:
        state: State of the search.
        cost: Seconds, model calls and FLOPs so far.
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


def progress_to(progress: SearchProgress) -> dict[str, Any]:
    """Convert a search's progress to plain numbers and lists, to send it to another process."""
    plain = {field.name: getattr(progress, field.name) for field in fields(progress)}
    found = progress.frontier
    return plain | {"frontier": [found.ids.tolist(), found.objective.tolist(), found.cross_entropy.tolist()]}


def progress_from(plain: dict[str, Any]) -> SearchProgress:
    """What `progress_to` made plain."""
    ids, objective, cross_entropy = plain["frontier"]
    frontier = ScoredPrompts(torch.tensor(ids), torch.tensor(objective), torch.tensor(cross_entropy))
    rest = {name: value for name, value in plain.items() if name != "frontier"}
    return SearchProgress(**rest, frontier=frontier)
