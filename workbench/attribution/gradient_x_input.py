"""Gradient x input: a first-order estimate of each token's effect, from one backward pass per target.

1. Take the prompt's embeddings e and a baseline b: the mean embedding of the tokens that a prompt may
   contain, or one token's embedding.
2. Effect of position i = (e_i - b_i) . d score / d e_i.

The baseline matters: with a zero baseline the product would depend on the arbitrary origin of the embedding
space (the plain product is from Shrikumar et al. 2016, "Not just a black box"). A latent that is not active
has no gradient, hence effect 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate


@ESTIMATORS.register("gradient_x_input")
@dataclass(frozen=True)
class GradientXInput:
    """Estimates a prompt token's effect as gradient times (token embedding minus baseline embedding).

    Attributes:
        baseline: Token whose embedding is the baseline at every position; None for the mean embedding.
        name: Name of the estimator in tables and files.
    """

    baseline: int | None = None
    name: str = "gradient_x_input"

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Estimate the effect of each prompt token on each target.

        The cost per question is one forward pass and, for each target, one backward pass.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        embeddings = problem.prompt_embeddings()
        step = embeddings - problem.baseline_embeddings(self.baseline)
        values = np.zeros((len(problem.contexts), len(problem.prompt), len(problem.targets.items)))
        for members in problem.context_batches():
            gradients = gradients_at(problem, members, embeddings[members])
            values[members] = torch.einsum("bpd,tbpd->bpt", step[members], gradients).double().cpu().numpy()
        return EffectEstimate(values)


def gradients_at(
    problem: AttributionProblem, members: list[int], embeddings: Float[Tensor, "batch prompt_pos d_model"]
) -> Float[Tensor, "target batch prompt_pos d_model"]:
    """Compute the gradient of each target with respect to the prompt tokens' embeddings, for each context.

    Args:
        problem: Model, prompt, contexts (questions in their chat template) and targets.
        members: Indices of the contexts to use.
        embeddings: Embeddings of the prompt at which the gradient is taken.
    """
    leaf = embeddings.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        scores = problem.embedded(members, leaf)
        totals = scores.sum(dim=0)
        found = []
        for total in totals:
            (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
            found.append(torch.zeros_like(leaf) if gradient is None else gradient)
    return torch.stack(found).detach()
