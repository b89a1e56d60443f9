"""Integrated gradients: gradient x input, averaged along the path from a baseline to the prompt.

The method is from Sundararajan et al. 2017.

1. Use the baseline b of gradient x input at all prompt positions at once.
2. Average the gradients at b + a (e - b) over the Gauss-Legendre nodes a of [0, 1], with their weights.
3. Effect of position i = (e_i - b_i) . averaged gradient.
4. Summed over positions, the effects equal score(e) - score(b) up to the integration error, which is reported
   as the completeness error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate
from workbench.attribution.gradient_x_input import gradients_at
from workbench.errors import UserError


@ESTIMATORS.register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients:
    """Estimates each prompt token's effect by integrated gradients.

    Gradients are averaged along the straight path from a baseline to the prompt's embeddings.

    Attributes:
        steps: Number of points on the path.
        baseline: Token whose embedding is the baseline at every position; None for the mean embedding.
        name: Name of the estimator in tables and files.
    """

    steps: int = 12
    baseline: int | None = None
    name: str = "integrated_gradients"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"integrated gradients need at least 1 step, found {self.steps}")

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Estimate the effect of each prompt token on each target, and the completeness error.

        The completeness error is the whole change from baseline to prompt minus the sum of the tokens'
        effects. The cost is `steps` times that of gradient x input.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        end, start = problem.prompt_embeddings(), problem.baseline_embeddings(self.baseline)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        values = np.zeros((len(problem.contexts), len(problem.prompt), len(problem.targets.items)))
        for members in problem.context_batches():
            way = end[members] - start[members]
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                gradients = gradients_at(problem, members, start[members] + float(node) * way)
                values[members] += (
                    weight * torch.einsum("bpd,tbpd->bpt", way, gradients).double().cpu().numpy()
                )
        return EffectEstimate(values, missing=_missing(problem, values, start, end))


def _missing(
    problem: AttributionProblem, values: np.ndarray, start: torch.Tensor, end: torch.Tensor
) -> dict[str, float]:
    """Compute the mean completeness error per target: score(e) - score(b) - sum of effects."""
    promised = np.zeros((len(problem.contexts), len(problem.targets.items)))
    with torch.no_grad():
        for members in problem.context_batches():
            difference = problem.embedded(members, end[members]) - problem.embedded(members, start[members])
            promised[members] = difference.double().cpu().numpy()
    short = (promised - values.sum(axis=1)).mean(axis=0)
    return {target.name: float(gap) for target, gap in zip(problem.targets.items, short, strict=True)}
