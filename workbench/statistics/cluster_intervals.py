"""Confidence intervals of clustered values: of a mean (log-odds, probabilities, differences) and of a rate.

1. A mean: Student's t with the CR2 standard error and Satterthwaite's degrees of freedom
   (cluster_moments.py).
2. A rate: Wilson's score interval at the effective number of values (rate * (1 - rate) / standard error^2, at
   most n) and with the t quantile in place of the normal one, after Korn & Graubard (1998) and Dean & Pagano
   (2015). It never has zero width: where every value agrees, the number of clusters is the effective number
   of values.
3. Seeds are clusters too: a search is a random variable, so its seeds give a mean, a spread and an interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import UserError
from workbench.statistics.cluster_moments import ClusterMoments, moments

#: Fewer clusters than this and every interval is marked `few`: simulated coverage is not to be relied on
#: there.
FEW_GROUPS = 8


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, in the unit of the values.

    Attributes:
        estimate: The estimate.
        low: Lower end.
        high: Upper end.
        n: Number of values.
        groups: Number of clusters.
        method: How it was made, one line.
        level: Coverage, 0 to 1.

    Example:
        >>> interval = wb.cluster_interval([0.0, 1.0, 2.0, 3.0], ["a", "a", "b", "b"])
        >>> interval.low < interval.estimate < interval.high
        True
    """

    estimate: float
    low: float
    high: float
    n: int
    groups: int
    method: str
    level: float = 0.95

    @property
    def few(self) -> bool:
        """True where there are fewer than FEW_GROUPS clusters: read the interval as a rough guide."""
        return self.groups < FEW_GROUPS

    def ends(self) -> tuple[float | None, float | None]:
        """(low, high); None for an end that is not finite (one cluster)."""
        return self.low if math.isfinite(self.low) else None, self.high if math.isfinite(self.high) else None

    def to_json(self) -> list[float | None]:
        """[low, high]; an end that is not finite (one cluster) is null."""
        return list(self.ends())

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class SeedSpread:
    """A figure over several seeds: interval of its mean, standard deviation between seeds, smallest and largest."""

    interval: Interval
    standard_deviation: float
    smallest: float
    largest: float


def cluster_interval(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], level: float = 0.95
) -> Interval:
    """Interval of the mean of clustered values, in their unit. Rates have `rate_interval`.

    Args:
        values: Log-odds, probabilities or their differences.
        groups: Cluster of each value.
        level: Coverage, 0 to 1.

    Returns:
        The mean with its interval; from -inf to inf with one cluster.

    Raises:
        UserError: A group id is missing, or a value is not finite.

    Example:
        >>> wb.cluster_interval([0.0, 1.0, 2.0, 3.0], ["a", "a", "b", "b"]).estimate
        1.5
    """
    _check_level(level)
    m = moments(values, groups)
    low, high = _t_ends(m, level)
    return Interval(m.mean, low, high, m.n, m.groups, f"t, CR2 errors, {m.df:.1f} df", level)


def rate_interval(
    hits: Sequence[float] | np.ndarray, groups: Sequence[Hashable], level: float = 0.95
) -> Interval:
    """Interval of a rate from clustered hits (0 or 1), inside 0 to 1 and never of zero width.

    Raises UserError for a hit that is neither 0 nor 1, or a missing group id.
    """
    _check_level(level)
    numbers = np.asarray(hits, dtype=np.float64)
    if not np.isin(numbers, (0.0, 1.0)).all():
        raise UserError("a rate is made of hits that are 0 or 1: use cluster_interval for other values")
    m = moments(numbers, groups)
    if m.groups == 1:
        return Interval(m.mean, 0.0, 1.0, m.n, 1, "one group: no interval", level)
    effective = effective_values(m)
    quantile = stats.t.ppf(0.5 + level / 2, m.df)
    low, high = proportion_confint(
        m.mean * effective, effective, alpha=float(2 * stats.norm.sf(quantile)), method="wilson"
    )
    low, high = (
        max(0.0, min(float(low), m.mean)),
        min(1.0, max(float(high), m.mean)),
    )  # rounding leaves neither 0-1 nor the estimate
    return Interval(
        m.mean, low, high, m.n, m.groups, f"Wilson, {effective:.1f} effective values, {m.df:.1f} df", level
    )


def effective_values(m: ClusterMoments) -> float:
    """How many independent 0/1 values would estimate this rate as well; between 1 and n, the clusters where all values agree."""
    if m.mean in (0.0, 1.0):
        return float(m.groups)
    if m.standard_error == 0:
        return float(m.n)
    return float(np.clip(m.mean * (1 - m.mean) / m.standard_error**2, 1.0, m.n))


def over_seeds(values: Sequence[float], level: float = 0.95) -> SeedSpread:
    """Mean over seeds with a t interval, and the spread between seeds (one value per seed). Raises UserError below two seeds."""
    if len(values) < 2:
        raise UserError(f"a spread over seeds needs at least 2 of them, found {len(values)}")
    interval = cluster_interval(values, range(len(values)), level)
    return SeedSpread(interval, float(np.std(values, ddof=1)), float(np.min(values)), float(np.max(values)))


def _t_ends(m: ClusterMoments, level: float) -> tuple[float, float]:
    if m.groups == 1:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.5 + level / 2, m.df)) * m.standard_error
    return m.mean - half, m.mean + half


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"a confidence level is between 0 and 1, found {level}")
