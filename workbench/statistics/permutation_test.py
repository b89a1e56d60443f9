"""Test whether clustered values have mean zero, by flipping the signs of whole clusters.

1. The sum of a cluster's values is the unit whose sign is flipped.
2. Under the null hypothesis both signs of a cluster's sum are equally likely. The p value is the fraction of
   the 2^G sign patterns whose total is at least as far from zero as the observed total. Up to EXACT_GROUPS
   clusters all patterns are counted, otherwise a sample that includes the observed pattern (Phipson & Smyth
   2010).
3. No p value can be below 2 / 2^G.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from workbench.statistics.cluster_moments import checked

#: Up to this number of clusters all sign patterns (65,536) are counted. scipy.stats.permutation_test gives
#: the same p, but takes half a second where this matrix product takes milliseconds, and a comparison has
#: dozens of tests.
EXACT_GROUPS = 16
SAMPLED_PATTERNS = 20_000
#: Number of signs that are drawn at a time: 64 MB for any number of clusters.
PATTERN_VALUES = 8_000_000


def sign_flip_p(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], seed: int = 0) -> float:
    """Test whether the mean of clustered values is zero, by flipping the signs of whole clusters.

    The result is the two-sided p value. With up to 16 clusters (EXACT_GROUPS) all sign patterns are counted,
    with more a random sample of them.

    Args:
        values: Finite numbers.
        groups: Cluster id of each value.
        seed: Seed of the sampled sign patterns.
    """
    numbers, codes = checked(values, groups)
    sums = np.bincount(codes, numbers)
    seen = abs(float(sums.sum()))
    enough = seen - 1e-9 * float(np.abs(sums).sum())  # ties that rounding would break count as ties
    if len(sums) <= EXACT_GROUPS:
        return float((np.abs(_all_signs(len(sums)) @ sums) >= enough).mean())
    rng, rows, further = np.random.default_rng(seed), max(1, PATTERN_VALUES // len(sums)), 0
    for start in range(0, SAMPLED_PATTERNS, rows):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(min(rows, SAMPLED_PATTERNS - start), len(sums)))
        further += int((np.abs(signs @ sums) >= enough).sum())
    return (1 + further) / (SAMPLED_PATTERNS + 1)


def smallest_p(n_groups: int) -> float:
    """Return the smallest two-sided p value that the sign-flip test can give.

    Args:
        n_groups: Number of clusters.
    """
    return 2.0 ** (1 - n_groups) if n_groups <= EXACT_GROUPS else 1 / (SAMPLED_PATTERNS + 1)


def _all_signs(n: int) -> np.ndarray:
    """Return all sign patterns whose first sign is plus; the others give the same absolute totals."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return np.where(np.roll(bits, 1, axis=1) == 1, -1.0, 1.0)
