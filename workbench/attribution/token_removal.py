"""Exact removal: what changes when one token is removed. The reference for all estimates.

1. Score the whole prompt in every context.
2. For each position, score the prompt without that token (the others move together).
3. Effect = score with - score without.

Leave-one-out (occlusion) is exact about this one change and no other: a token whose work another one also
does has effect 0. The change is made to the token ids; the shorter text might be cut into tokens differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate


@ESTIMATORS.register("removal")
@dataclass(frozen=True)
class TokenRemoval:
    """Leave-one-out by deletion."""

    name: str = "removal"

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """One extra forward pass per token and context."""
        without = problem.scores([drop(problem.prompt, i) for i in range(len(problem.prompt))])
        return EffectEstimate(np.moveaxis(problem.with_prompt[None] - without, 0, 1))


def drop(prompt: Ids, *positions: int) -> Ids:
    """The prompt without the tokens at these positions."""
    return tuple(token for i, token in enumerate(prompt) if i not in positions)
