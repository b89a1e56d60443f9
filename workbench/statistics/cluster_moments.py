"""Compute the mean of clustered values, its standard error and its degrees of freedom.

1. Values with equal group ids are one cluster. A missing id is an error, never a separate cluster.
2. The mean gives every value the same weight, so a large cluster counts more (it is the rate that a reader
   computes).
3. Standard error: CR2, which divides each cluster's summed residual by sqrt(1 - its fraction of the values),
   and is unbiased if values are independent (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018). CR1, which
   statsmodels has, is too small if clusters are few and unequal.
4. Degrees of freedom: Satterthwaite's for that estimator, with the correlation within clusters estimated from
   the residuals (Imbens & Kolesar 2016). Clusters of equal size give exactly G - 1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from workbench.errors import UserError

#: Up to this number of clusters the degrees of freedom are computed from the covariance matrix.
MANY_CLUSTERS = 300


@dataclass(frozen=True)
class ClusterMoments:
    """Mean of clustered values with its standard error.

    Attributes:
        mean: Mean over all values.
        standard_error: Standard error of the mean, in its unit; nan with one cluster.
        df: Degrees of freedom of the standard error.
        n: Number of values.
        groups: Number of clusters.
    """

    mean: float
    standard_error: float
    df: float
    n: int
    groups: int


def clusters(groups: Sequence[Hashable]) -> Int[np.ndarray, " value"]:
    """Number the clusters of values from 0, in order of first appearance; equal ids are one cluster.

    Args:
        groups: Cluster id of each value.

    Returns:
        int64 [value], the number of each value's cluster.

    Raises:
        UserError: An id is missing (None, nan or an empty string). A value of unknown cluster cannot be
            counted as independent of the others.
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
    """Compute the mean of clustered values, its CR2 standard error and degrees of freedom.

    Args:
        values: Finite numbers.
        groups: Cluster id of each value.

    Raises:
        UserError: A value is not finite, or a cluster id is missing.
    """
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
    """Check clustered values and convert them to arrays.

    Args:
        values: Finite numbers.
        groups: Cluster id of each value.

    Returns:
        The values as float64 and the number of each value's cluster.

    Raises:
        UserError: The input is empty, not one-dimensional or not finite, or ids and values differ in number.
    """
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
    """Return the square root, with 0 for a variance that is only rounding error of equal cluster means."""
    root = math.sqrt(variance)
    return root if root > 1e-14 * float(np.abs(numbers).max(initial=0.0)) else 0.0


def _within_correlation(residuals: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> float:
    """Estimate the correlation of two values of a cluster from products of residuals, clipped to 0 to 1.

    It is 0 if no cluster has two values.
    """
    pairs = float((sizes * (sizes - 1)).sum())
    variance = float((residuals**2).mean())
    if pairs == 0 or variance == 0:
        return 0.0
    covariance = float((sums**2).sum() - (residuals**2).sum()) / pairs
    return min(1.0, max(0.0, covariance / variance))


def _degrees_of_freedom(sizes: Float[np.ndarray, " cluster"], correlation: float) -> float:
    """Compute Satterthwaite's 2 mean^2 / variance of the CR2 estimator for this correlation."""
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
    """Compute `_degrees_of_freedom` without a matrix, which for 5,000 clusters would cost 125 GFLOP.

    The covariance is the sum of a diagonal and total a a' - a b' - b a'. If one cluster had nearly all
    values, the terms would cancel.
    """
    a, b, own, total = scale * share, scale * variance, scale**2 * variance, float(variance.sum())
    outer = total * a**2 - 2 * a * b
    aa, ab, bb = float(a @ a), float(a @ b), float(b @ b)
    squares = (
        float(own @ own + 2 * own @ outer) + 2 * aa * bb + 2 * ab**2 + total**2 * aa**2 - 4 * total * aa * ab
    )
    return float((own + outer).sum() ** 2 / squares)
