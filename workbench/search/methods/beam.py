"""Beam search without gradients, after BEAST.

BEAST: Sadasivan et al., "Fast adversarial attacks on language models in one GPU minute", arXiv 2402.15570.

1. Start from texts that the model writes in the slot.
2. Change one position per step, from left to right, and start again at the left after the last.
3. Draw each beam's children at that position from the model's distribution given the tokens on its left.
4. Score the children; each fluency weight keeps its best prompt.

Differences from the published method: the tokens right of the position are kept from the parent, so that
every prompt has its full length; and beams are kept for each fluency weight, not by the objective alone.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from workbench.search.scored_prompts import ChildProposals, Ids
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.toolkit import SearchToolkit


@SEARCH_METHODS.register("beam")
class Beam(SearchMethod):
    """Beam search without gradients: new tokens are drawn from the model's own distribution.

    The prompts start as texts of the model. Each step draws new tokens at one position, from left to right.
    The options are those of `SearchMethod` and the following.

    Attributes:
        temperature: Temperature of the distribution from which tokens are drawn without replacement.

    Example:
        >>> wb.Beam(length=6, temperature=1.5).temperature
        1.5
    """

    uses_gradient: ClassVar[bool] = False

    temperature: float = Field(default=1.0, gt=0)

    def start(self, bench: SearchToolkit) -> Ids:
        """Return the prompts of the first step: the start text (if any), and prompts that the model writes.

        Args:
            bench: The search's tools, such as its scorer and random generator.
        """
        return self.with_start_text(bench, bench.sampled_prompts(self.population, self.length))

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children: copies of each beam's prompt with one token drawn from the model's distribution.

        The distribution is that given the tokens on the left. Each step changes one position; positions take
        turns.

        Args:
            bench: The search's tools, such as its random generator.
            prepared: The beams' prompts with log-probabilities of all tokens at their positions.
            step: Number of the step, from 0, which determines the position.
        """
        position = step % self.length
        log_probs = prepared.log_probs.position(position)
        scores = log_probs / self.temperature + bench.gumbel(tuple(log_probs.shape))
        tokens = bench.top_tokens(scores[:, None], prepared.ids[:, position : position + 1], self.children)[
            :, 0
        ]
        rows = prepared.on_host.tolist()
        return bench.from_list(
            [
                (p, (*rows[p][:position], token, *rows[p][position + 1 :]))
                for p, drawn in enumerate(tokens.tolist())
                for token in drawn
            ],
            prepared.on_host,
        )
