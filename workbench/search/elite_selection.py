"""Select one elite per fluency weight, and compute the Pareto frontier.

A candidate's value at a fluency weight w is objective - w * cross-entropy. The weights are log-spaced (EPO,
arXiv 2402.01702). Each weight takes the best candidate that no earlier weight took, which keeps the
population diverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.search.scored_prompts import ScoredPrompts


def ladder(low: float, high: float, n_weights: int) -> tuple[float, ...]:
    """Return `n_weights` log-spaced weights of the cross-entropy, from `low` to `high`.

    A search maximises objective - weight x cross-entropy (its *fluency weights*), one prompt for each weight.
    """
    return tuple(float(w) for w in np.geomspace(low, high, n_weights))


def values(scored: ScoredPrompts, weights: tuple[float, ...]) -> Float[Tensor, "weight candidate"]:
    """Return objective - weight x cross-entropy for every scored prompt and every fluency weight.

    The result has one row per weight and one column per prompt.
    """
    w = torch.tensor(weights, device=scored.objective.device)[:, None]
    return scored.objective[None] - w * scored.cross_entropy[None]


def elites(pool: ScoredPrompts, weights: tuple[float, ...], distinct: bool = True) -> ScoredPrompts:
    """Select, for each fluency weight, the prompt with the largest objective - weight x cross-entropy.

    Args:
        pool: Scored prompts to select from.
        weights: Fluency weights (factors of the cross-entropy), in objective units per nat.
        distinct: Whether to select each prompt at most once, as long as unselected ones are left. If False,
            one prompt can be the best at all weights.

    Returns:
        The selected prompts (elites), one per weight, in the order of the weights; ties go to the lower
        index.
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
    """Return a mask of the pool's prompts: True for the first copy of each prompt, False for later copies."""
    seen: set[tuple[int, ...]] = set()
    fresh = [not (row in seen or seen.add(row)) for row in map(tuple, pool.ids.tolist())]  # type: ignore[func-returns-value]
    return torch.tensor(fresh, device=pool.ids.device)


@dataclass(frozen=True)
class CanSurvive:
    """Test whether a child (a changed copy of a prompt) could still be selected by the search.

    A child is selected as an elite (the best prompt at one fluency weight) or as a point of the Pareto
    frontier of objective and cross-entropy. The test needs the child's objective and a lower bound of its
    cross-entropy.

    Elites are selected weight by weight, so with T weights at most T - 1 prompts are already taken when a
    weight selects. A child below the T-th best parent at every weight can therefore not be an elite. A child
    that an earlier prompt beats on both objective and cross-entropy cannot reach the frontier.

    Attributes:
        weights: Fluency weights (factors of the cross-entropy), in objective units per nat.
        archive: The Pareto frontier of all prompts scored so far; None before the first step.
    """

    weights: tuple[float, ...]
    archive: ScoredPrompts | None

    def __call__(
        self, parents: ScoredPrompts, objective: Tensor, bound: Tensor
    ) -> Float[Tensor, " candidate"]:
        """Return a margin per child, which is below 0 if it can be neither an elite nor on the frontier.

        Args:
            parents: The parents with their scores.
            objective: Objective of each child.
            bound: Lower bound of each child's cross-entropy, nats per token.

        Returns:
            Margins in objective units: the distance to the worst parent that could still be an elite, at the
            child's best fluency weight; at least 0 for a child that may reach the frontier.
        """
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
        """Order scored prompts by the priority with which successive halving keeps them.

        The best prompt at every fluency weight (by objective - weight x cross-entropy) comes first, then
        every weight's second best, and so on. So prompts of every level of fluency are kept. (With one
        ranking for all weights no fluent prompt was left: docs/performance.md.)

        Args:
            objective: Objective of each prompt.
            cross_entropy: Cross-entropy of each prompt, nats per token.

        Returns:
            Indices of the prompts, the one to keep first in front.
        """
        nameless = torch.empty(len(objective), 0, dtype=torch.long, device=objective.device)
        table = values(ScoredPrompts(nameless, objective, cross_entropy), self.weights).nan_to_num(
            nan=-torch.inf
        )
        places = table.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return places.min(dim=0).values.argsort(stable=True)


def pareto_frontier(pool: ScoredPrompts) -> ScoredPrompts:
    """Return the Pareto frontier of scored prompts: no other prompt beats them on both scores.

    The scores are the objective (higher is better) and the cross-entropy (lower is better). The prompt with
    the lowest cross-entropy comes first. Copies of a prompt are selected once.
    """
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
    """Return the area (objective units x nats) that some points dominate, a measure of a Pareto frontier.

    Args:
        objective: Objectives of the points.
        cross_entropy: Cross-entropies of the points, nats per token.
        reference: The point (objective, cross-entropy) that bounds the area; points with a lower objective or
            a greater cross-entropy do not count.
    """
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
