"""Intervals of effects that are averaged over sampled orders of words."""

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
    """Over questions clustered by group, widened by twice the standard error of the sampled orders (at right angles); None: no sampling."""
    found = cluster_interval(values, groups)
    if error is None or not math.isfinite(found.low):
        return found
    half = math.hypot(found.estimate - found.low, 2 * error)
    return replace(
        found, low=found.estimate - half, high=found.estimate + half, method=f"{found.method}, sampled orders"
    )
