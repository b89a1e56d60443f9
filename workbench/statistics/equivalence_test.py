"""Equivalence test (TOST): whether a mean is shown to be within a margin.

Two one-sided tests (Schuirmann 1987): a mean is shown to be between low and high by rejecting both "below
low" and "above high". A large p value of a test against equality does not show equivalence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from workbench.errors import UserError
from workbench.statistics.cluster_intervals import Interval, cluster_interval
from workbench.statistics.cluster_moments import moments


@dataclass(frozen=True)
class EquivalenceTest:
    """Result of two one-sided tests (TOST) of whether a mean is between two margins.

    Attributes:
        low: Lower margin.
        high: Upper margin.
        p: The larger of the two p values.
        interval: Confidence interval at level 1 - 2 alpha; it is inside (low, high) exactly if p < alpha.
        alpha: Significance level.
    """

    low: float
    high: float
    p: float
    interval: Interval
    alpha: float

    @property
    def equivalent(self) -> bool:
        """Whether the mean is shown to be between the margins (p < alpha)."""
        return self.p < self.alpha


def tost(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    low: float,
    high: float,
    alpha: float = 0.05,
) -> EquivalenceTest:
    """Test whether the mean of clustered values is between two margins.

    To compare a rate with 50 %, give hits (0 or 1) and the margins 0.4 and 0.6.

    Args:
        values: Finite numbers.
        groups: Cluster id of each value.
        low: Lower margin, in the unit of the values.
        high: Upper margin.
        alpha: Significance level.

    Returns:
        The p value, the confidence interval, and whether the mean is shown to be between the margins.

    Raises:
        UserError: low is not below high.
    """
    if not low < high:
        raise UserError(f"equivalence needs low < high, found {low} and {high}")
    m = moments(values, groups)
    interval = cluster_interval(values, groups, level=1 - 2 * alpha)
    if m.groups == 1:
        return EquivalenceTest(low, high, 1.0, interval, alpha)
    if m.standard_error == 0:
        return EquivalenceTest(low, high, 0.0 if low < m.mean < high else 1.0, interval, alpha)
    above_low = stats.t.sf((m.mean - low) / m.standard_error, m.df)
    below_high = stats.t.cdf((m.mean - high) / m.standard_error, m.df)
    return EquivalenceTest(low, high, float(max(above_low, below_high)), interval, alpha)
