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
    """Compute the interval of a word's mean effect, widened by the sampling error of its Shapley values.

    The Shapley values are means over sampled orders of the words. Twice their standard error is added in
    quadrature to the half-width of the interval over questions.

    Args:
        values: Effect of the word on each question.
        groups: Group of each question; the interval is clustered by group.
        error: Standard error of the mean effect from sampling orders; None if all orders were used.
    """
    found = cluster_interval(values, groups)
    if error is None or not math.isfinite(found.low):
        return found
    half = math.hypot(found.estimate - found.low, 2 * error)
    return replace(
        found, low=found.estimate - half, high=found.estimate + half, method=f"{found.method}, sampled orders"
    )
