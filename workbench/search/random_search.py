"""Random search: the control. Children are one-token swaps drawn evenly from all allowed tokens; no gradient is taken."""

from __future__ import annotations

import torch

from workbench.search.bench import Bench
from workbench.search.fluency import Prepared
from workbench.search.method import Method
from workbench.search.scored import Proposals


class RandomSearch(Method):
    """Hill climbing on random swaps with the same population, ladder and scoring as the other methods."""

    def propose(self, bench: Bench, prepared: Prepared, step: int) -> Proposals:
        everything = torch.nonzero(bench.allowed)[:, 0].expand(*prepared.ids.shape, -1)
        return bench.swap(prepared.ids, everything, self.children)
