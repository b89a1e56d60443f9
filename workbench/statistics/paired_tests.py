"""Two conditions on the same questions: the difference, its interval and its p value.

1. The difference of the two conditions for each value, with a clustered t interval; p by sign flips of whole
   clusters (permutation_test.py), corrected over the primary conditions (multiple_testing.py).
2. A difference of two rates has its interval from those of the rates (MOVER: Newcombe 1998, method 10; Zou &
   Donner 2008), with the correlation of the two clustered means: a t interval is far too short for a rate
   near 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import UserError
from workbench.statistics.cluster_intervals import Interval, cluster_interval, rate_interval
from workbench.statistics.cluster_moments import moments
from workbench.statistics.permutation_test import EXACT_GROUPS, sign_flip_p, smallest_p


@dataclass(frozen=True)
class PairedDifference:
    """First condition minus second, in the unit of the values.

    p: two-sided, by sign flips of clusters; smallest_p: what these clusters could give at best; exact: all
    sign patterns were counted.
    """

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

    a, b: one value per context, in the same order. seed: of the sampled sign patterns. Raises UserError when
    a and b differ in length, a group id is missing, or a value is not finite.
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
        value,
        max(-1.0, value - down),
        min(1.0, value + up),
        first.n,
        first.groups,
        "MOVER of Wilson intervals",
        level,
    )
    return _paired(a, b, groups, seed, interval)


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
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    difference: np.ndarray,
    groups: Sequence[Hashable],
) -> float:
    """Correlation of the two means, from the variances of each and of their difference; 0 where one of them has none."""
    va, vb, vd = (moments(values, groups).standard_error ** 2 for values in (a, b, difference))
    return float(np.clip((va + vb - vd) / (2 * math.sqrt(va * vb)), -1, 1)) if va > 0 and vb > 0 else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    """Length of one arm of the difference's interval, from an arm of either rate's."""
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))
