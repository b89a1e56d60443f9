"""The minimum detectable effect: the smallest true difference that a paired t test over G clusters detects with a given power.

Computed by statsmodels, from an observed standard error or from a spread assumed in advance.
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
    """The smallest true mean difference that a comparison with this spread and these clusters finds with this power.

    differences: paired differences seen, one a context, in the unit of the answer. nan with one cluster.
    """
    m = moments(differences, groups)
    if m.groups == 1:
        return math.nan
    return _effect(m.df + 1, power, alpha) * m.standard_error * math.sqrt(m.df + 1)


def minimum_detectable_effect_from_spread(
    spread: float, n_groups: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Minimum detectable effect of a planned comparison.

    spread: standard deviation of the cluster means of the difference. n_groups: number of equal clusters.
    """
    if spread < 0 or n_groups < 2:
        raise UserError(
            f"expected a spread of at least 0 and at least 2 groups, found {spread} and {n_groups}"
        )
    return _effect(n_groups, power, alpha) * spread


def _effect(n: float, power: float, alpha: float) -> float:
    """Smallest effect, in standard deviations of n cluster means, of a two-sided one-sample t test."""
    if not 0 < power < 1:
        raise UserError(f"power is between 0 and 1, found {power}")
    return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided"))
