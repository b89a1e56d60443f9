"""Integrated gradients (Sundararajan et al. 2017): gradient x input, averaged along the path from a baseline to the prompt.

1. Baseline b as in gradient x input, for all prompt positions at once.
2. Gradients at b + a (e - b) for the Gauss-Legendre nodes a of [0, 1], averaged with their weights.
3. Effect of position i = (e_i - b_i) . averaged gradient.
4. Over positions the effects add up to score(e) - score(b); what is missing from that sum is the completeness
   error.
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
    """Gradients averaged along the path from a baseline to the prompt's embeddings.

    steps: nodes along the path. baseline: a token id, or None for the mean embedding.
    """

    steps: int = 12
    baseline: int | None = None
    name: str = "integrated_gradients"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"integrated gradients need at least 1 step, found {self.steps}")

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """`steps` times the cost of gradient x input."""
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
    """Per target: mean over contexts of (score(e) - score(b)) - sum of effects."""
    promised = np.zeros((len(problem.contexts), len(problem.targets.items)))
    with torch.no_grad():
        for members in problem.context_batches():
            difference = problem.embedded(members, end[members]) - problem.embedded(members, start[members])
            promised[members] = difference.double().cpu().numpy()
    short = (promised - values.sum(axis=1)).mean(axis=0)
    return {target.name: float(gap) for target, gap in zip(problem.targets.items, short, strict=True)}
