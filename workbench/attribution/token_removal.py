"""Exact removal: the change of the score when one token is removed. The reference for all estimates.

1. Score the whole prompt in every context.
2. For each position, score the prompt without that token; the others close the gap.
3. Effect = score with - score without.

Leave-one-out (occlusion) is exact for this one change only: a token that is redundant with another one has
no effect. The token ids are changed, not the text, because the shorter text might be tokenized differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.attribution.attribution_problem import AttributionProblem, Ids
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate


@ESTIMATORS.register("removal")
@dataclass(frozen=True)
class TokenRemoval:
    """Measures each prompt token's effect exactly, by deleting that token (leave-one-out).

    Attributes:
        name: Name of the estimator in tables and files.
    """

    name: str = "removal"

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Compute the exact change of each target when each prompt token is deleted.

        The cost is one additional forward pass per token and question.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        without = problem.scores([drop(problem.prompt, i) for i in range(len(problem.prompt))])
        return EffectEstimate(np.moveaxis(problem.with_prompt[None] - without, 0, 1))


def drop(prompt: Ids, *positions: int) -> Ids:
    """Return a copy of a prompt without the tokens at the given positions.

    Args:
        prompt: Token ids.
        positions: Indices of the tokens to leave out.
    """
    return tuple(token for i, token in enumerate(prompt) if i not in positions)
