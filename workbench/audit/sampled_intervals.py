"""Intervals of effects that are means over sampled orders of words."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from workbench.statistics import Interval, cluster_interval


def sampled_interval(
    values: Float[np.ndarray, " context"], groups: Sequence[Hashable], error: float | None
) -> Interval:
    """Compute the interval of a mean effect over questions, widened by the error of sampling orders.

    Twice the standard error of the sampling is added in quadrature to the half-width.

    Args:
        values: Effect in each context.
        groups: Question group of each context; the interval is clustered by group.
        error: Standard error from sampling the orders; None if no orders were sampled.
    """
    found = cluster_interval(values, groups)
    if error is None or not math.isfinite(found.low):
        return found
    half = math.hypot(found.estimate - found.low, 2 * error)
    return replace(
        found, low=found.estimate - half, high=found.estimate + half, method=f"{found.method}, sampled orders"
    )
