"""Equivalence (TOST): are two conditions shown to be equal within a margin?

Two one-sided tests (Schuirmann 1987): "within (low, high)" is shown by rejecting both "below low" and "above
high", never by a large p against equality.
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
    """Result of two one-sided tests.

    p: the larger of the two; interval: at level 1 - 2 alpha, which is inside (low, high) exactly when p <
    alpha.
    """

    low: float
    high: float
    p: float
    interval: Interval
    alpha: float

    @property
    def equivalent(self) -> bool:
        """True where the mean is shown to be between low and high."""
        return self.p < self.alpha


def tost(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    low: float,
    high: float,
    alpha: float = 0.05,
) -> EquivalenceTest:
    """Is the mean of clustered values shown to be between low and high? For a rate against 50 %: hits, 0.4, 0.6.

    Raises UserError when low is not below high.
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
