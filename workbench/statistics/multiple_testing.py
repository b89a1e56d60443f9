"""Correction of p values for several tests, and the number of clusters that a corrected test needs.

Holm's method is applied to the conditions named in advance (statsmodels' version collects garbage for 0.3 s
in every call). A sign-flip p value cannot be below 2 / 2^G, so a correction over many conditions needs many
clusters; `groups_needed` gives the number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workbench.errors import UserError


def groups_needed(tests: int, alpha: float = 0.05) -> int:
    """Return the fewest clusters with which sign-flip tests can be significant after Holm's correction.

    With fewer clusters, even the smallest p value that such a test can give is above alpha.

    Args:
        tests: Number of tests that are corrected together.
        alpha: Significance level.
    """
    if tests < 1 or not 0 < alpha < 1:
        raise UserError(f"expected at least 1 test and alpha between 0 and 1, found {tests} and {alpha}")
    return max(2, math.ceil(1 + math.log2(tests / alpha)))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values by Holm's method (Holm 1979).

    Args:
        p: P values of all tests.

    Returns:
        The corrected p values in the same order; an empty list for an empty list.
    """
    if len(p) == 0:
        return []
    if not all(0 <= value <= 1 for value in p):
        raise UserError(f"p values are between 0 and 1, found {list(p)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
