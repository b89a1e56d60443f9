"""Decide which children run in one batch, since each run of the blocks has a fixed cost (kernel launches).

1. A child needs only the tokens from its first changed one on, so children that change at the same position
   start at the same position.
2. If a child starts further left, it runs tokens again that it has from its parent: the same scores for more
   arithmetic.
3. Fewer runs of more tokens are faster for tiny models, and on a GPU, where some fifty kernels per block are
   launched one by one (about 3 ms per block on an H200, bound by the host: docs/performance.md). The cheapest
   cut of the ordered positions into runs is found exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Arithmetic operations that take as long as launching one block's kernels, by kind of device. They are
#: constants, so that a run's bits do not depend on a measurement. CPU: half a millisecond at 40 GFLOP/s; GPU:
#: 2 ms at 250 TFLOP/s (set before the first measurement, which gave 3 ms at 512).
START_OPERATIONS = {"cpu": 2e7, "mps": 5e9, "cuda": 5e11}


def launch_overhead_tokens(block_parameters: int, device_type: str) -> float:
    """Return how many tokens through a block cost as much time as launching the block's kernels.

    Args:
        block_parameters: Number of weights of the block.
        device_type: `cpu`, `mps` or `cuda`.
    """
    return START_OPERATIONS.get(device_type, 0.0) / (2 * max(1, block_parameters))


def batch_candidates(counts: Sequence[tuple[int, int]], length: int, start: float) -> list[tuple[int, int]]:
    """Group children (changed prompts) by their first changed position into runs that cost least in total.

    A child needs to run only from its first changed position on. Children of one run all start at the run's
    first position: fewer runs save launch overhead, but run more tokens.

    Args:
        counts: Pairs (position, number of children whose first changed token is there), positions rising.
        length: Tokens of the prompt.
        start: Launch overhead of a run, expressed as a number of tokens.

    Returns:
        First and last position of each run. A run has the children whose first changed position is from the
        first to the last one.
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
