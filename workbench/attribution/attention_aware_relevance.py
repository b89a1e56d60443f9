"""Attention-aware relevance: gradient x input of the model with its attention patterns and norms held fixed.

1. Run the prompt once; treat every attention pattern and every norm's scale as a constant.
2. The remaining function between attention and MLPs is linear in the residual stream, so gradient x input no
   longer loses relevance where a softmax or a norm saturates (Ali et al. 2022, arXiv 2202.07304; the rules
   for attention and norms of AttnLRP, arXiv 2402.05602).
3. Effect of position i = (e_i - b_i) . gradient, with the baseline b of gradient x input.

The cost is that of gradient x input. MLPs keep their true gradient.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate
from workbench.attribution.gradient_x_input import GradientXInput

#: Hooks whose activation multiplies other activations; their gradient is dropped.
CONSTANTS = (
    "attn.hook_pattern",
    "ln1.hook_scale",
    "ln2.hook_scale",
    "ln1_post.hook_scale",
    "ln2_post.hook_scale",
)


@ESTIMATORS.register("relevance")
@dataclass(frozen=True)
class AttentionAwareRelevance:
    """Estimates each prompt token's effect by gradient x input, with attention and norms held constant.

    The attention patterns and the scales of the norms are treated as constants in the backward pass.

    Attributes:
        baseline: Token whose embedding is the baseline at every position; None for the mean embedding.
        name: Name of the estimator in tables and files.
    """

    baseline: int | None = None
    name: str = "relevance"

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Estimate the effect of each prompt token on each target.

        The cost per question is one forward pass and, for each target, one backward pass.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        runner = problem.runner
        depth = problem.targets.depth(runner.shape.n_layers)
        wanted = [f"blocks.{layer}.{hook}" for layer in range(depth) for hook in CONSTANTS]
        with ExitStack() as edits:
            for name in [*wanted, *(["ln_final.hook_scale"] if problem.targets.needs_final else [])]:
                if name in runner.hook_names():
                    edits.enter_context(runner.edit(name, Tensor.detach))
            return GradientXInput(self.baseline).estimate(problem)
