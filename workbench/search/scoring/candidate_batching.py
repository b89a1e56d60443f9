"""Which children are batched: each run of the blocks has a fixed cost (kernel launches).

1. A child needs the tokens from its first changed one on; children that change at the same place start at the
   same place.
2. Started further left, a child runs tokens again that it has from its parent: the same scores, more
   arithmetic.
3. On a GPU, where some fifty kernels a block are started one by one (some 3 ms a block on an H200, bound by
   the host: docs/performance.md), and for tiny models, fewer runs of more tokens are quicker. The cut that
   costs least is found exactly, over places in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Operations that the time of starting one block's kernels is worth, by kind of device: constants, so that a
#: run's bits do not depend on a measurement. CPU: half a millisecond at 40 GFLOP/s; a GPU: 2 ms at 250
#: TFLOP/s (set before the first measurement, 3 ms at 512).
START_OPERATIONS = {"cpu": 2e7, "mps": 5e9, "cuda": 5e11}


def launch_overhead_tokens(block_parameters: int, device_type: str) -> float:
    """The tokens through a block of this size that starting it is worth."""
    return START_OPERATIONS.get(device_type, 0.0) / (2 * max(1, block_parameters))


def batch_candidates(counts: Sequence[tuple[int, int]], length: int, start: float) -> list[tuple[int, int]]:
    """The cheapest cut of places into runs, as (first, last) place of each.

    counts: (place, children that change first there), places rising. length: of the prompt. start: tokens
    that a run's start is worth.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(counts) + 1):
        costs = []
        for begin in range(end):
            rows = sum(n for _, n in counts[begin:end])
            costs.append((best[begin][0] + start + rows * (length - counts[begin][0]), begin))
        best.append(min(costs, key=lambda cost: (cost[0], -cost[1])))
    runs, end = [], len(counts)
    while end:
        begin = best[end][1]
        runs.append((counts[begin][0], counts[end - 1][0]))
        end = begin
    return runs[::-1]
