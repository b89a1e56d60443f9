"""What a cluster is, and the mean of clustered values with its standard error and degrees of freedom.

1. A value's cluster is its group id, equal ids are one cluster; a missing id is an error, never a cluster of
   its own.
2. The mean weighs every value alike, so a large cluster counts more (it is the rate that a reader computes).
3. Standard error: CR2, each cluster's summed residual divided by sqrt(1 - its fraction of the values), which
   is unbiased when values are independent (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018). CR1, which
   statsmodels has, is too small where clusters are few and unequal.
4. Degrees of freedom: Satterthwaite's for that estimator, with the correlation within clusters estimated from
   the residuals (Imbens & Kolesar 2016). Equal clusters give exactly G - 1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from workbench.errors import UserError

#: Up to so many clusters the degrees of freedom are read off the covariance itself.
MANY_CLUSTERS = 300


@dataclass(frozen=True)
class ClusterMoments:
    """Mean of clustered values. standard_error: of the mean, in its unit, nan with one cluster. df: degrees of freedom."""

    mean: float
    standard_error: float
    df: float
    n: int
    groups: int


def clusters(groups: Sequence[Hashable]) -> Int[np.ndarray, " value"]:
    """Cluster number of each value, from 0 in order of first appearance; equal ids are one cluster.

    Raises UserError where an id is missing (None, nan or an empty string): a value whose cluster is unknown
    cannot be counted as independent of the others.
    """
    ids = list(groups)
    missing = [identity for identity in dict.fromkeys(ids) if _is_missing(identity)]
    if missing:
        index = next(i for i, identity in enumerate(ids) if _is_missing(identity))
        raise UserError(
            f"value {index} has no group id (found {ids[index]!r}): every value needs the id of its question group"
        )
    return pd.factorize(np.fromiter(ids, dtype=object, count=len(ids)))[0].astype(np.int64)


def moments(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable]) -> ClusterMoments:
    """Mean, CR2 standard error and degrees of freedom of clustered values. Raises UserError for values that are not finite."""
    numbers, codes = checked(values, groups)
    sizes = np.bincount(codes).astype(np.float64)
    n, n_groups = len(numbers), len(sizes)
    mean = float(numbers.mean())
    if n_groups == 1:
        return ClusterMoments(mean, math.nan, 0.0, n, 1)
    residuals = numbers - mean
    share = sizes / n
    sums = np.bincount(codes, residuals)
    variance = float((sums**2 / (1 - share)).sum()) / n**2
    return ClusterMoments(
        mean,
        _clean_root(variance, numbers),
        _degrees_of_freedom(sizes, _within_correlation(residuals, sums, sizes)),
        n,
        n_groups,
    )


def checked(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " value"], Int[np.ndarray, " value"]]:
    """Values as float64 and their cluster numbers. Raises UserError for an empty, ragged or non-finite input."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise UserError(f"expected a non-empty list of numbers, found shape {numbers.shape}")
    codes = clusters(groups)
    if len(codes) != len(numbers):
        raise UserError(f"expected one group id for each of {len(numbers)} values, found {len(codes)} ids")
    if not np.isfinite(numbers).all():
        bad = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise UserError(f"value {bad} is {numbers[bad]}: expected finite numbers")
    return numbers, codes


def _is_missing(identity: Hashable) -> bool:
    if isinstance(identity, str):
        return not identity.strip()
    return (
        identity is None
        or identity is pd.NA
        or identity is pd.NaT
        or (isinstance(identity, float) and math.isnan(identity))
    )


def _clean_root(variance: float, numbers: np.ndarray) -> float:
    """Square root; what rounding alone leaves of equal cluster means is zero."""
    root = math.sqrt(variance)
    return root if root > 1e-14 * float(np.abs(numbers).max(initial=0.0)) else 0.0


def _within_correlation(residuals: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> float:
    """Correlation of two values of one cluster, estimated from products of residuals; 0 to 1, 0 where no cluster has two."""
    pairs = float((sizes * (sizes - 1)).sum())
    variance = float((residuals**2).mean())
    if pairs == 0 or variance == 0:
        return 0.0
    covariance = float((sums**2).sum() - (residuals**2).sum()) / pairs
    return min(1.0, max(0.0, covariance / variance))


def _degrees_of_freedom(sizes: Float[np.ndarray, " cluster"], correlation: float) -> float:
    """Satterthwaite: 2 mean^2 / variance of the CR2 estimator when values of a cluster have this correlation."""
    share = sizes / sizes.sum()
    sum_variance = sizes * (1 - correlation) + sizes**2 * correlation
    scale = 1 / np.sqrt(1 - share)
    if len(sizes) > MANY_CLUSTERS and share.max() < 0.1:
        return _degrees_of_many(share, sum_variance, scale)
    residual_maker = np.eye(len(sizes)) - np.outer(share, np.ones(len(sizes)))
    covariance = (residual_maker * sum_variance) @ residual_maker.T * np.outer(scale, scale)
    return float(np.trace(covariance) ** 2 / (covariance**2).sum())


def _degrees_of_many(
    share: Float[np.ndarray, " cluster"],
    variance: Float[np.ndarray, " cluster"],
    scale: Float[np.ndarray, " cluster"],
) -> float:
    """The same without a matrix, which for 5,000 clusters costs 125 GFLOP.

    The covariance is a diagonal and total a a' - a b' - b a'; with one cluster that has nearly all values the
    terms would cancel.
    """
    a, b, own, total = scale * share, scale * variance, scale**2 * variance, float(variance.sum())
    outer = total * a**2 - 2 * a * b
    aa, ab, bb = float(a @ a), float(a @ b), float(b @ b)
    squares = (
        float(own @ own + 2 * own @ outer) + 2 * aa * bb + 2 * ab**2 + total**2 * aa**2 - 4 * total * aa * ab
    )
    return float((own + outer).sum() ** 2 / squares)
