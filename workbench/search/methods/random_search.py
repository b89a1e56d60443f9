"""Random search, the control without gradients.

Children are one-token swaps drawn uniformly from the allowed tokens.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from workbench.search.scored_prompts import ChildProposals
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.toolkit import SearchToolkit


@SEARCH_METHODS.register("random")
class RandomSearch(SearchMethod):
    """Hill climbing on random one-token swaps: a control that shows what gradients add.

    The options, the scoring and the selection of prompts are those of the other search methods.

    Example:
        >>> wb.RandomSearch(length=6).uses_gradient
        False
    """

    uses_gradient: ClassVar[bool] = False

    @override
    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        if "tokens" not in bench.tools:
            bench.tools["tokens"] = bench.tokens_at(self.length).cpu()
        return bench.swap(
            prepared.on_host, bench.tools["tokens"].expand(len(prepared.ids), -1, -1), self.children
        )
