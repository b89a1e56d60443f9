"""Shapley values of a prompt's tokens: each token's contribution, averaged over orders of adding tokens.

Shapley 1953, estimated by sampling orders (Castro et al. 2009).

1. A coalition is a set of positions; its worth is the score of the prompt with only these tokens, in their
   order.
2. Draw an order of the positions and its reverse (antithetic pairs reduce the variance). Add the tokens one
   by one; each token is credited with the change of the score.
3. Effect = mean credit over orders; its standard error is from the spread between antithetic pairs.
4. Short prompts are computed exactly from all 2^n coalitions.

In each order the credits add up to score(prompt) - score(empty slot), so the effects do too.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate
from workbench.errors import UserError

Coalition = frozenset[int]


@ESTIMATORS.register("shapley")
@dataclass(frozen=True)
class ShapleyValues:
    """Estimates each prompt token's effect by its Shapley value.

    That is its mean contribution over orders in which the tokens are added to the prompt.

    Attributes:
        pairs: Number of antithetic pairs (an order and its reverse) that are sampled.
        exact_up_to: Prompts of at most this many tokens are computed exactly.
        name: Name of the estimator in tables and files.
    """

    pairs: int = 12
    exact_up_to: int = 5
    name: str = "shapley"

    def __post_init__(self) -> None:
        if self.pairs < 2:
            raise UserError(
                f"Shapley values need at least 2 pairs of orders for a standard error, found {self.pairs}"
            )

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Compute the Shapley value of each prompt token for each target.

        The cost per question is at most 2 x pairs x tokens forward passes. A subset of tokens that occurs in
        several orders is run once.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        if len(problem.prompt) <= self.exact_up_to:
            return EffectEstimate(_exact(problem))
        n, rng = len(problem.prompt), np.random.default_rng(problem.seed)
        orders = [rng.permutation(n) for _ in range(self.pairs)]
        worth = _worths(
            problem, [set_ for order in orders for way in (order, order[::-1]) for set_ in _growing(way)]
        )
        credits = np.stack([(_credits(order, worth) + _credits(order[::-1], worth)) / 2 for order in orders])
        error = credits.mean(axis=1).std(axis=0, ddof=1) / math.sqrt(self.pairs)
        return EffectEstimate(credits.mean(axis=0), error)


def _growing(order: np.ndarray) -> list[Coalition]:
    return [frozenset(order[:k].tolist()) for k in range(len(order) + 1)]


def _worths(problem: AttributionProblem, coalitions: list[Coalition]) -> dict[Coalition, np.ndarray]:
    """Return the score of each distinct coalition, [context target]."""
    distinct = sorted(set(coalitions), key=lambda c: (len(c), sorted(c)))
    prompts = [tuple(problem.prompt[i] for i in sorted(coalition)) for coalition in distinct]
    return dict(zip(distinct, problem.scores(prompts), strict=True))


def _credits(order: np.ndarray, worth: dict[Coalition, np.ndarray]) -> np.ndarray:
    """Return what each token adds in this order, [context prompt_pos target]."""
    sets = _growing(order)
    credits = np.zeros((worth[sets[0]].shape[0], len(order), worth[sets[0]].shape[1]))
    for k, position in enumerate(order):
        credits[:, position] = worth[sets[k + 1]] - worth[sets[k]]
    return credits


def _exact(problem: AttributionProblem) -> np.ndarray:
    n = len(problem.prompt)
    everything = [frozenset(c) for size in range(n + 1) for c in itertools.combinations(range(n), size)]
    worth = _worths(problem, everything)
    values = np.zeros((len(problem.contexts), n, len(problem.targets.items)))
    for coalition in everything:
        for i in set(range(n)) - coalition:
            share = (
                math.factorial(len(coalition)) * math.factorial(n - len(coalition) - 1) / math.factorial(n)
            )
            values[:, i] += share * (worth[coalition | {i}] - worth[coalition])
    return values
