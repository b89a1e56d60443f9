"""Two conditions on the same questions: the difference, its interval, and an exact test by flipping the signs of clusters.

1. Difference of the two conditions at each value; the cluster's sum is the unit that is flipped.
2. If the conditions do not differ, a cluster's sum is as likely with the other sign: p is the share of the 2^G sign patterns
   whose total is at least as far from zero as the one seen (all of them up to EXACT_GROUPS clusters, otherwise sampled, with
   the seen one counted in: Phipson & Smyth 2010).
3. No p can be below 2 / 2^G, so a correction over many conditions needs groups: `groups_needed` says how many.
4. Holm's correction over the conditions named in advance (statsmodels).
5. A difference of two rates has its interval from those of the rates (MOVER: Newcombe 1998, method 10; Zou & Donner 2008),
   with the correlation of the two clustered means: a t interval is far too short where a rate is near 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.multitest import multipletests

from workbench.errors import UserError
from workbench.statistics.cluster_intervals import Interval, cluster_interval, rate_interval
from workbench.statistics.cluster_moments import checked, moments

#: Up to so many clusters all sign patterns are counted (65,536); scipy.stats.permutation_test gives the same p, but takes
#: half a second where one matrix product takes milliseconds, and a comparison has dozens of them.
EXACT_GROUPS = 16
SAMPLED_PATTERNS = 20_000


@dataclass(frozen=True)
class PairedDifference:
    """First condition minus second, in the unit of the values. p: two-sided, by sign flips of clusters; smallest_p: what these
    clusters could give at best; exact: all sign patterns were counted."""

    value: float
    interval: Interval
    p: float
    smallest_p: float
    exact: bool

    @property
    def groups(self) -> int:
        """Number of clusters."""
        return self.interval.groups


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Mean of a - b over the same questions, with a clustered t interval and the sign-flip p; for log-odds and probabilities.

    a, b: one value a context, in the same order. seed: of the sampled sign patterns. Raises UserError when a and b differ in
    length, a group id is missing, or a value is not finite.
    """
    return _paired(a, b, groups, seed, cluster_interval(_difference(a, b), groups, level))


def paired_rate_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Rate of hits a minus rate of hits b over the same questions, -1 to 1, with an interval that holds near 0 and 1 too.

    a, b: 0 or 1 a context, in the same order. Errors as `paired_difference` and `rate_interval`.
    """
    difference = _difference(a, b)
    first, second = rate_interval(a, groups, level), rate_interval(b, groups, level)
    correlation = _correlation_of_means(a, b, difference, groups)
    value = float(difference.mean())
    down = _combined(first.estimate - first.low, second.high - second.estimate, correlation)
    up = _combined(first.high - first.estimate, second.estimate - second.low, correlation)
    interval = Interval(
        value, max(-1.0, value - down), min(1.0, value + up), first.n, first.groups, "MOVER of Wilson intervals", level
    )
    return _paired(a, b, groups, seed, interval)


def sign_flip_p(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], seed: int = 0) -> float:
    """Two-sided p that the values' mean is zero, from sign flips of whole clusters; exact up to EXACT_GROUPS clusters."""
    numbers, codes = checked(values, groups)
    sums = np.bincount(codes, numbers)
    seen = abs(float(sums.sum()))
    enough = seen - 1e-9 * float(np.abs(sums).sum())  # ties that rounding would break count as ties
    if len(sums) <= EXACT_GROUPS:
        return float((np.abs(_all_signs(len(sums)) @ sums) >= enough).mean())
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(SAMPLED_PATTERNS, len(sums)))
    return float((1 + (np.abs(signs @ sums) >= enough).sum()) / (SAMPLED_PATTERNS + 1))


def smallest_p(n_groups: int) -> float:
    """The smallest two-sided p that the sign-flip test can give with so many clusters."""
    return 2.0 ** (1 - n_groups) if n_groups <= EXACT_GROUPS else 1 / (SAMPLED_PATTERNS + 1)


def groups_needed(tests: int, alpha: float = 0.05) -> int:
    """The stated minimum of groups: with fewer, Holm over so many tests cannot pass even the clearest effect at alpha."""
    if tests < 1 or not 0 < alpha < 1:
        raise UserError(f"expected at least 1 test and alpha between 0 and 1, found {tests} and {alpha}")
    return max(2, math.ceil(1 + math.log2(tests / alpha)))


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected by Holm's method, in the same order (statsmodels); an empty list stays empty."""
    if len(p) == 0:
        return []
    if not all(0 <= value <= 1 for value in p):
        raise UserError(f"p values lie between 0 and 1, found {list(p)}")
    return np.asarray(multipletests(list(p), method="holm")[1], dtype=np.float64).tolist()


def _difference(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    if len(a) != len(b):
        raise UserError(f"paired values need the same contexts: found {len(a)} and {len(b)} of them")
    return np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)


def _paired(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    seed: int,
    interval: Interval,
) -> PairedDifference:
    p = sign_flip_p(_difference(a, b), groups, seed)
    return PairedDifference(
        interval.estimate, interval, p, smallest_p(interval.groups), interval.groups <= EXACT_GROUPS
    )


def _correlation_of_means(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, difference: np.ndarray, groups: Sequence[Hashable]
) -> float:
    """Correlation of the two means, from the variances of each and of their difference; 0 where one of them has none."""
    va, vb, vd = (moments(values, groups).standard_error ** 2 for values in (a, b, difference))
    return float(np.clip((va + vb - vd) / (2 * math.sqrt(va * vb)), -1, 1)) if va > 0 and vb > 0 else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    """Length of one arm of the difference's interval, from an arm of either rate's."""
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def _all_signs(n: int) -> np.ndarray:
    """All sign patterns whose first sign is plus: the other half gives the same absolute totals."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return np.where(np.roll(bits, 1, axis=1) == 1, -1.0, 1.0)
