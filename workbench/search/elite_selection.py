"""Selection: one elite per fluency weight, and the frontier.

A candidate's value at a fluency weight w is objective - w * fluency. The weights are log-spaced (EPO, arXiv
2402.01702). Diversity is kept by construction: each weight takes the best candidate that no weight before it
took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.search.scored_prompts import ScoredPrompts


def ladder(low: float, high: float, n_weights: int) -> tuple[float, ...]:
    """Log-spaced fluency weights from low to high."""
    return tuple(float(w) for w in np.geomspace(low, high, n_weights))


def values(scored: ScoredPrompts, weights: tuple[float, ...]) -> Float[Tensor, "weight candidate"]:
    """Objective - weight * fluency, for every weight."""
    w = torch.tensor(weights, device=scored.objective.device)[:, None]
    return scored.objective[None] - w * scored.cross_entropy[None]


def elites(pool: ScoredPrompts, weights: tuple[float, ...], distinct: bool = True) -> ScoredPrompts:
    """For each weight the best candidate of the pool, in the order of the weights; ties go to the lower index.

    distinct: no prompt is taken twice while there are others (without it the population can collapse to one
    prompt).
    """
    table = values(pool, weights).nan_to_num(nan=-torch.inf)
    taken: list[int] = []
    free = first_copies(pool)
    for row in table:
        masked = row.masked_fill(~free, -torch.inf) if distinct and free.any() else row
        best = int(masked.argmax())
        taken.append(best)
        if distinct:
            free = free.clone()
            free[best] = False
    return pool.pick(torch.tensor(taken, device=pool.ids.device))


def first_copies(pool: ScoredPrompts) -> Bool[Tensor, " candidate"]:
    """True for the first occurrence of each prompt."""
    seen: set[tuple[int, ...]] = set()
    fresh = [not (row in seen or seen.add(row)) for row in map(tuple, pool.ids.tolist())]  # type: ignore[func-returns-value]
    return torch.tensor(fresh, device=pool.ids.device)


@dataclass(frozen=True)
class CanSurvive:
    """How far a child is from the population or the frontier, given only a lower bound of its fluency (Scorer's `advantage`).

    With T weights at most T - 1 candidates are taken before any weight, so a child that stays below the T-th
    best parent at every weight cannot be an elite; a child that an archived candidate beats on both counts
    cannot reach the frontier.
    """

    weights: tuple[float, ...]
    archive: ScoredPrompts | None

    def __call__(
        self, parents: ScoredPrompts, objective: Tensor, bound: Tensor
    ) -> Float[Tensor, " candidate"]:
        """At least 0 for a child that may be an elite or on the frontier, below 0 for one that cannot."""
        n_weights = len(self.weights)
        at_best = values(ScoredPrompts(parents.ids[:0], objective, bound), self.weights)
        ranked = values(parents, self.weights).sort(dim=1, descending=True).values
        threshold = ranked[:, n_weights - 1] if ranked.shape[1] >= n_weights else ranked[:, -1] - torch.inf
        margin = (at_best - threshold[:, None]).max(0).values
        if self.archive is None:
            return margin
        above, natural = (
            scores.to(objective.device)[:, None]
            for scores in (self.archive.objective, self.archive.cross_entropy)
        )
        beaten = (above >= objective) & (natural <= bound)
        return torch.where(beaten.any(0), margin, margin.clamp(min=0.0))

    def order(
        self, objective: Float[Tensor, " candidate"], cross_entropy: Float[Tensor, " candidate"]
    ) -> Int[Tensor, " candidate"]:
        """Candidates from the one to keep first.

        The best at any weight, then the second best at any, and so on, so that every part of the frontier
        keeps its own (by one number for all weights the fluent part died out: docs/performance.md).
        """
        nameless = torch.empty(len(objective), 0, dtype=torch.long, device=objective.device)
        table = values(ScoredPrompts(nameless, objective, cross_entropy), self.weights).nan_to_num(
            nan=-torch.inf
        )
        places = table.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return places.min(dim=0).values.argsort(stable=True)


def pareto_frontier(pool: ScoredPrompts) -> ScoredPrompts:
    """The candidates that no other one beats on both objective and fluency, most fluent first; copies once."""
    objectives, cross_entropies = pool.objective.cpu().numpy(), pool.cross_entropy.cpu().numpy()
    best, kept, seen = -np.inf, [], set()
    rows = pool.ids.tolist()
    for index in np.lexsort((-objectives, cross_entropies)):
        objective, ids = float(objectives[index]), tuple(rows[index])
        if objective > best and np.isfinite(cross_entropies[index]) and ids not in seen:
            best = objective
            kept.append(int(index))
            seen.add(ids)
    return pool.pick(torch.tensor(kept, dtype=torch.long, device=pool.ids.device))


def hypervolume(objective: np.ndarray, cross_entropy: np.ndarray, reference: tuple[float, float]) -> float:
    """Area (objective units x nats) dominated by the points over the reference (least objective, greatest fluency cost)."""
    low, worst = reference
    order = np.argsort(cross_entropy, kind="stable")
    area, best = 0.0, low
    ends = np.append(np.clip(cross_entropy[order][1:], None, worst), worst)
    for index, end in zip(order, ends, strict=True):
        if cross_entropy[index] >= worst:
            break
        best = max(best, float(objective[index]))
        area += (best - low) * (end - float(cross_entropy[index]))
    return area
