"""GCG, greedy coordinate gradient.

Zou et al., "Universal and transferable adversarial attacks", arXiv 2307.15043.

1. Differentiate the objective with respect to the one-hot tokens of a single prompt.
2. Draw children: a random position, and a token drawn uniformly from the k tokens with the largest
   derivative.
3. Score all children; the best of parent and children becomes the prompt. (Published GCG drops the parent
   even if no child is better; keeping it never scores worse.)

With `answer_log_odds()` or `AnswerLogProb` as the objective this is the attack on the answer; any other
objective works.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from workbench.search.scored_prompts import ChildProposals
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.toolkit import SearchToolkit


@SEARCH_METHODS.register("gcg")
class GCG(SearchMethod):
    """Greedy coordinate gradient (Zou et al. 2023): one prompt, the best of many single-token swaps.

    The options are those of `SearchMethod` and the following.

    Attributes:
        population: Always 1 (the one prompt that is changed).
        children: Changed prompts that are scored per step.
        fluency_low: Factor of the cross-entropy in the maximised score, nearly 0 (published GCG has no such
            term).
        fluency_high: Always equal to `fluency_low`.
        top_k: At each position, new tokens are drawn from the `top_k` with the largest derivative.
        gradient_contexts: Number of questions over which each gradient is averaged; steps take the questions
            in turn.

    Example:
        >>> wb.GCG(length=20).population
        1
    """

    keeps_one_prompt: ClassVar[bool] = True

    population: int = Field(default=1, ge=1, le=1)
    children: int = Field(default=256, ge=1, le=1_000_000)
    fluency_low: float = Field(default=1e-6, gt=0)
    fluency_high: float = Field(default=1e-6, gt=0)
    top_k: int = Field(default=256, ge=1)
    gradient_contexts: int = Field(default=8, ge=1)

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children: copies of the prompt with one token swapped for one of large derivative.

        The derivative is that of the objective alone, without the cross-entropy.

        Args:
            bench: The search's tools, such as its scorer and random generator.
            prepared: The current prompt.
            step: Number of the step, from 0.
        """
        slope = bench.scorer.gradients(prepared.ids, self.gradient_contexts, step * self.gradient_contexts)
        return bench.swap(
            prepared.on_host,
            bench.top_tokens(bench.gains(prepared, slope), prepared.ids, self.top_k),
            self.children,
        )
