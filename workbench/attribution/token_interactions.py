"""Interactions of pairs of tokens: whether their joint effect differs from the sum of their single effects.

1. Take the tokens with the strongest effects by removal on a target.
2. Interaction of i and j = score(all) - score(without i) - score(without j) + score(without both). It is zero
   if the effects add. Its sign is opposite to theirs if the tokens are redundant.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.ledger import TokenPair
from workbench.attribution.token_removal import drop
from workbench.statistics import cluster_interval


def interactions(
    problem: AttributionProblem,
    removal: np.ndarray,
    kinds: Sequence[str] = ("answer", "direction"),
    top: int = 4,
) -> tuple[TokenPair, ...]:
    """Measure the interactions of all pairs among each target's strongest prompt tokens.

    The cost per context is at most top x (top - 1) / 2 forward passes for each target.

    Args:
        problem: Model, prompt, contexts and targets.
        removal: Effect of deleting each token alone, [context prompt_pos target].
        kinds: Kinds of targets for which interactions are measured, such as "answer".
        top: Number of strongest tokens, by their mean effect when deleted.

    Returns:
        The pairs, by target, the strongest interaction first.
    """
    wanted: dict[tuple[int, int], list[int]] = {}
    for t, target in enumerate(problem.targets.items):
        if target.kind in kinds:
            strongest = np.argsort(-np.abs(removal[:, :, t].mean(axis=0)), kind="stable")[:top]
            for i, j in itertools.combinations(sorted(strongest.tolist()), 2):
                wanted.setdefault((i, j), []).append(t)
    if not wanted:
        return ()
    without = problem.scores([drop(problem.prompt, i, j) for i, j in wanted])
    found = [
        pair
        for (key, targets), both in zip(wanted.items(), without, strict=True)
        for pair in _pairs(problem, removal, key, targets, both)
    ]
    order = [target.name for target in problem.targets.items]
    return tuple(sorted(found, key=lambda pair: (order.index(pair.target), -abs(pair.mean))))


def _pairs(
    problem: AttributionProblem,
    removal: np.ndarray,
    key: tuple[int, int],
    targets: list[int],
    both: np.ndarray,
) -> list[TokenPair]:
    i, j = key
    interaction = removal[:, i] + removal[:, j] - (problem.with_prompt - both)
    found = []
    for t in targets:
        interval = cluster_interval(interaction[:, t], problem.contexts.groups)
        found.append(
            TokenPair(problem.targets.items[t].name, i, j, interval.estimate, interval.low, interval.high)
        )
    return found
