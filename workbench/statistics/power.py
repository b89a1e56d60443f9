"""Minimum detectable effect: the smallest true difference that a paired t test detects with a given power.

It is computed by statsmodels, from an observed standard error or from a spread assumed in advance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from statsmodels.stats.power import TTestPower

from workbench.errors import UserError
from workbench.statistics.cluster_moments import moments


def minimum_detectable_effect(
    differences: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """Return the smallest true mean difference that a comparison detects with the given power.

    Args:
        differences: Observed paired differences, one per context.
        groups: Cluster id of each context.
        power: Probability of detecting the effect, 0 to 1.
        alpha: Significance level of the two-sided test.

    Returns:
        The effect in the unit of the differences; nan with one cluster.
    """
    m = moments(differences, groups)
    if m.groups == 1:
        return math.nan
    return _effect(m.df + 1, power, alpha) * m.standard_error * math.sqrt(m.df + 1)


def minimum_detectable_effect_from_spread(
    spread: float, n_groups: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the minimum detectable effect of a planned comparison, in the unit of the spread.

    Args:
        spread: Standard deviation of the cluster means of the difference.
        n_groups: Number of clusters of equal size.
        power: Probability of detecting the effect, 0 to 1.
        alpha: Significance level of the two-sided test.
    """
    if spread < 0 or n_groups < 2:
        raise UserError(
            f"expected a spread of at least 0 and at least 2 groups, found {spread} and {n_groups}"
        )
    return _effect(n_groups, power, alpha) * spread


def _effect(n: float, power: float, alpha: float) -> float:
    """Return the smallest detectable effect of a two-sided one-sample t test, in SDs of n cluster means."""
    if not 0 < power < 1:
        raise UserError(f"power is between 0 and 1, found {power}")
    return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided"))
