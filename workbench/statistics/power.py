"""What a comparison could have seen, and whether two conditions may be called equal.

1. The smallest true difference that a paired t test over G clusters finds with the wished power (statsmodels), from the
   standard error that was seen, or from a spread assumed in advance.
2. Two one-sided tests (Schuirmann 1987): "as good as 50 %" is shown by rejecting both "below low" and "above high", never
   by a large p against equality.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.power import TTestPower

from workbench.errors import UserError
from workbench.statistics.cluster_intervals import Interval, cluster_interval
from workbench.statistics.cluster_moments import moments


@dataclass(frozen=True)
class EquivalenceTest:
    """Result of two one-sided tests. p: the larger of the two; interval: at level 1 - 2 alpha, which lies inside (low, high)
    exactly when p < alpha."""

    low: float
    high: float
    p: float
    interval: Interval
    alpha: float

    @property
    def equivalent(self) -> bool:
        """True where the mean is shown to lie between low and high."""
        return self.p < self.alpha


def minimum_detectable_effect(
    differences: Sequence[float] | np.ndarray, groups: Sequence[Hashable], power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true mean difference that a comparison with this spread and these clusters finds with this power.

    differences: paired differences seen, one a context, in the unit of the answer. nan with one cluster.
    """
    m = moments(differences, groups)
    if m.groups == 1:
        return math.nan
    return _effect(m.df + 1, power, alpha) * m.standard_error * math.sqrt(m.df + 1)


def minimum_detectable_effect_from_spread(spread: float, n_groups: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The same, planned: spread is the standard deviation of the cluster means of the difference, n_groups equal clusters."""
    if spread < 0 or n_groups < 2:
        raise UserError(f"expected a spread of at least 0 and at least 2 groups, found {spread} and {n_groups}")
    return _effect(n_groups, power, alpha) * spread


def tost(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], low: float, high: float, alpha: float = 0.05
) -> EquivalenceTest:
    """Is the mean of clustered values shown to lie between low and high? For a rate against 50 %: hits, 0.4, 0.6.

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


def _effect(n: float, power: float, alpha: float) -> float:
    """Smallest effect, in standard deviations of n cluster means, of a two-sided one-sample t test."""
    if not 0 < power < 1:
        raise UserError(f"power lies between 0 and 1, found {power}")
    return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided"))
