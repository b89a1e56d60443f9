"""Compare two conditions on the same questions: the difference, its interval and its p value.

1. Mean: the differences of the two conditions have a clustered t interval. The p value is from sign flips of
   whole clusters (permutation_test.py), and is corrected over the primary conditions (multiple_testing.py).
2. Rates: the interval of a difference of two rates is combined from the intervals of the rates (MOVER:
   Newcombe 1998, method 10; Zou & Donner 2008), with the correlation of the two clustered means. A t interval
   would be far too short for a rate near 0 or 1.
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
    """Difference of two conditions, first minus second, in the unit of the values.

    Attributes:
        value: The difference.
        interval: The difference with its confidence interval.
        p: Two-sided p value by sign flips of whole clusters.
        smallest_p: Smallest p value that is possible with this number of clusters.
        exact: Whether all sign patterns were counted (otherwise a random sample of them).
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
    """Compute the mean of a - b with a clustered t interval and a sign-flip p value.

    Use it for log-odds and probabilities, and `paired_rate_difference` for rates.

    Args:
        a: Values of the first condition, one per context.
        b: Values of the second condition, for the same contexts in the same order.
        groups: Cluster id of each context.
        level: Confidence level, 0 to 1.
        seed: Seed of the sampled sign patterns.

    Raises:
        UserError: a and b differ in length, a cluster id is missing, or a value is not finite.
    """
    return _paired(a, b, groups, seed, cluster_interval(_difference(a, b), groups, level))


def paired_rate_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compute the rate of hits a minus the rate of hits b, from -1 to 1, with interval and p value.

    The interval is valid also for rates near 0 and 1.

    Args:
        a: Hits (0 or 1) of the first condition, one per context.
        b: Hits of the second condition, for the same contexts in the same order.
        groups: Cluster id of each context.
        level: Confidence level, 0 to 1.
        seed: Seed of the sampled sign patterns.

    Raises:
        UserError: a and b differ in length, a cluster id is missing, or a hit is neither 0 nor 1.
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
    """Estimate the correlation of two means from their variances and that of their difference.

    It is 0 if either mean has no variance.
    """
    va, vb, vd = (moments(values, groups).standard_error ** 2 for values in (a, b, difference))
    return float(np.clip((va + vb - vd) / (2 * math.sqrt(va * vb)), -1, 1)) if va > 0 and vb > 0 else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    """Return the length of one arm of the difference's interval, from one arm of each rate's interval."""
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))
