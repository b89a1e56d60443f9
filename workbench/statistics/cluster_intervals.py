"""Confidence intervals of clustered values: of a mean (log-odds, probabilities, differences) and of a rate.

1. Mean: Student's t with the CR2 standard error and Satterthwaite's degrees of freedom (cluster_moments.py).
2. Rate: Wilson's score interval with the effective number of values (rate * (1 - rate) / standard error^2, at
   most n) and the t quantile instead of the normal one, after Korn & Graubard (1998) and Dean & Pagano
   (2015). Its width is never zero: if all values are equal, the effective number of values is the number of
   clusters.
3. Seeds: results of a search with several seeds are clusters too, and give a mean, a spread and an interval.
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

#: With fewer clusters than this, an interval is marked `few`: its simulated coverage is unreliable.
FEW_GROUPS = 8


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, in the unit of the values.

    Attributes:
        estimate: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of values.
        groups: Number of clusters.
        method: Method of the interval, in one line.
        level: Confidence level, 0 to 1.

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
        """Whether there are so few clusters (fewer than FEW_GROUPS) that the interval is only a rough guide."""
        return self.groups < FEW_GROUPS

    def ends(self) -> tuple[float | None, float | None]:
        """Return (low, high), with None for an end that is not finite (with one cluster)."""
        return self.low if math.isfinite(self.low) else None, self.high if math.isfinite(self.high) else None

    def to_json(self) -> list[float | None]:
        """Return [low, high] for JSON, with None for an end that is not finite (with one cluster)."""
        return list(self.ends())

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class SeedSpread:
    """A quantity measured with several seeds.

    Attributes:
        interval: Mean over seeds with its confidence interval.
        standard_deviation: Standard deviation between seeds.
        smallest: Smallest value.
        largest: Largest value.
    """

    interval: Interval
    standard_deviation: float
    smallest: float
    largest: float


def cluster_interval(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], level: float = 0.95
) -> Interval:
    """Compute the mean of clustered values with its confidence interval; use `rate_interval` for rates.

    Args:
        values: Log-odds, probabilities or their differences.
        groups: Cluster id of each value.
        level: Confidence level, 0 to 1.

    Returns:
        The mean and its interval, in the unit of the values; from -inf to inf with one cluster.

    Raises:
        UserError: A cluster id is missing, or a value is not finite.

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
    """Compute a rate of clustered hits with its confidence interval.

    Args:
        hits: 0 or 1 for each value.
        groups: Cluster id of each value.
        level: Confidence level, 0 to 1.

    Returns:
        The rate and its interval within 0 to 1, which never has zero width.

    Raises:
        UserError: A hit is neither 0 nor 1, or a cluster id is missing.
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
    )  # the clips only correct rounding
    return Interval(
        m.mean, low, high, m.n, m.groups, f"Wilson, {effective:.1f} effective values, {m.df:.1f} df", level
    )


def effective_values(m: ClusterMoments) -> float:
    """Return the effective number of values of a rate that was computed from clustered 0/1 values.

    It is the number of independent values with which the rate would have the same standard error.

    The result is between 1 and n; if all values are equal, it is the number of clusters.

    Args:
        m: Mean (the rate) and standard error of the clustered 0/1 values.
    """
    if m.mean in (0.0, 1.0):
        return float(m.groups)
    if m.standard_error == 0:
        return float(m.n)
    return float(np.clip(m.mean * (1 - m.mean) / m.standard_error**2, 1.0, m.n))


def over_seeds(values: Sequence[float], level: float = 0.95) -> SeedSpread:
    """Compute the mean over seeds with a t interval, and the spread between seeds.

    Args:
        values: One value per seed.
        level: Confidence level, 0 to 1.

    Raises:
        UserError: There are fewer than two seeds.
    """
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
