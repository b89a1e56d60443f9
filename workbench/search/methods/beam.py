"""Beam search without gradients, after BEAST.

(Sadasivan et al., "Fast adversarial attacks on language models in one GPU minute",
arXiv 2402.15570).

1. Start from the model's own texts in the slot.
2. Go through the positions from left to right, one a step, and round again.
3. At the position, draw each beam's children from the model's own distribution given what is left of it.
4. Score them; each fluency weight keeps its best.

Differences from the published method: what is right of the position is a text already written, not nothing,
so that every prompt has its full length; and beams are kept along the fluency weights, not by the objective
alone.
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
    """Beam search without gradients: tokens are drawn from the model's own distribution. The options of `SearchMethod` and this one.

    Attributes:
        temperature: Of the distribution that tokens are drawn from, without putting back.

    Example:
        >>> wb.Beam(length=6, temperature=1.5).temperature
        1.5
    """

    uses_gradient: ClassVar[bool] = False

    temperature: float = Field(default=1.0, gt=0)

    def start(self, bench: SearchToolkit) -> Ids:
        """The start text (if any) next to prompts sampled from the model."""
        return self.with_start_text(bench, bench.sampled_prompts(self.population, self.length))

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Every prompt with one position (they take turns) drawn again from the model's distribution there."""
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
