"""Rank correlation with a confidence interval, for example of predicted with measured effects of prompts.

1. Spearman's coefficient (scipy).
2. Interval: Fisher's z with the variance (1 + r^2 / 2) / (n - 3) of Bonett & Wright (2000). If pairs are not
   independent (`groups`), a BCa bootstrap of whole clusters (scipy.stats.bootstrap).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.errors import UserError
from workbench.statistics.cluster_intervals import Interval
from workbench.statistics.cluster_moments import checked


def rank_correlation(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute Spearman's rank correlation, from -1 to 1, with its confidence interval.

    Args:
        x: First value of each pair.
        y: Second value of each pair.
        groups: Cluster id of each pair, if pairs are not independent. None: they are independent.
        level: Confidence level, 0 to 1.
        seed: Seed of the bootstrap.

    Returns:
        The correlation and its interval; all nan if x or y is constant.

    Raises:
        UserError: There are fewer than 4 pairs, or a value is not finite.

    Example:
        >>> round(wb.rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).estimate, 2)
        0.9
    """
    xs, codes = checked(x, groups if groups is not None else range(len(x)))
    ys, _ = checked(y, range(len(y)))
    if len(xs) != len(ys) or len(xs) < 4:
        raise UserError(f"a rank correlation needs at least 4 pairs, found {len(xs)} and {len(ys)} values")
    n_groups = int(codes.max()) + 1
    if np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return Interval(math.nan, math.nan, math.nan, len(xs), n_groups, "constant: no correlation", level)
    r = spearman(xs, ys)
    if n_groups == len(xs):
        return Interval(r, *_fisher(r, len(xs), level), len(xs), n_groups, "Fisher z, Bonett-Wright", level)
    return Interval(
        r,
        *_cluster_bootstrap(xs, ys, codes, level, seed),
        len(xs),
        n_groups,
        "BCa bootstrap of clusters",
        level,
    )


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Compute Spearman's rank correlation, from -1 to 1; nan if x or y is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)  # a bootstrap sample may be constant: nan
        result: Any = stats.spearmanr(x, y)
        return float(result.statistic)


def _fisher(r: float, n: int, level: float) -> tuple[float, float]:
    z = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12))
    half = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return math.tanh(z - half), math.tanh(z + half)


def _cluster_bootstrap(
    x: np.ndarray, y: np.ndarray, codes: np.ndarray, level: float, seed: int
) -> tuple[float, float]:
    members = [np.flatnonzero(codes == c) for c in range(int(codes.max()) + 1)]
    if len(members) == 1:
        return -1.0, 1.0

    def statistic(chosen: np.ndarray) -> float:
        index = np.concatenate([members[int(c)] for c in chosen])
        return spearman(x[index], y[index])

    result = stats.bootstrap(
        (np.arange(len(members)),),
        statistic,
        n_resamples=999,
        confidence_level=level,
        vectorized=False,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
