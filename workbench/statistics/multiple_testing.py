"""Correction of p values over several tests, and how many clusters a corrected test needs.

Holm's method over the conditions named in advance (statsmodels' own collects garbage for 0.3 s at every
call). A sign-flip p cannot be below 2 / 2^G, so a correction over many conditions needs clusters:
`groups_needed` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from workbench.errors import UserError


def groups_needed(tests: int, alpha: float = 0.05) -> int:
    """The stated minimum of groups: with fewer, Holm over so many tests cannot pass even the clearest effect at alpha."""
    if tests < 1 or not 0 < alpha < 1:
        raise UserError(f"expected at least 1 test and alpha between 0 and 1, found {tests} and {alpha}")
    return max(2, math.ceil(1 + math.log2(tests / alpha)))


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected by Holm's method, in the same order (Holm 1979); an empty list stays empty."""
    if len(p) == 0:
        return []
    if not all(0 <= value <= 1 for value in p):
        raise UserError(f"p values are between 0 and 1, found {list(p)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
