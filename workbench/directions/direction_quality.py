"""Measure how good a direction is: held-out AUC, precision of its angle, prediction of effects, confounds.

All functions are pure. Intervals of angles are percentile bootstraps over question groups (rows of a group
are drawn together).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from workbench.directions.direction_method import Fit
from workbench.errors import UserError
from workbench.statistics import spearman


def auc(readings: Float[Tensor, " n"], shown: Bool[Tensor, " n"]) -> float:
    """Return the probability that a row that shows the persona has a higher reading than one that does not.

    A row is one sequence, and its reading the projection on a direction. Ties count one half. The result is
    nan if all rows are of one class.
    """
    n_shown, n_other = int(shown.sum()), int((~shown).sum())
    if n_shown == 0 or n_other == 0:
        return float("nan")
    ranks = rankdata(readings.double().numpy())
    return float((ranks[shown.numpy()].sum() - n_shown * (n_shown + 1) / 2) / (n_shown * n_other))


def cosine(a: Float[Tensor, " d_model"], b: Float[Tensor, " d_model"]) -> float:
    """Return the cosine of the angle between two vectors, -1 to 1; nan if one of them is zero."""
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 0 else float("nan")


def angle_interval(
    fit: Fit,
    x: Float[Tensor, "n d_model"],
    y: Float[Tensor, " n"],
    groups: Sequence[str],
    replicates: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return an interval of the angle, in degrees, between a direction and its bootstrap replicates.

    An angle near 90 means that the data do not determine the direction.

    Args:
        fit: Function that fits the direction.
        x: Activations [n, d_model], one row per sequence.
        y: Score of each row (plus = shows the persona).
        groups: Question group of each row; groups are drawn as wholes.
        replicates: Number of bootstrap replicates.
        seed: Seed of the draws.
        level: Level of the interval.

    Returns:
        Lower and upper end in degrees; nan if no replicate has both classes.
    """
    whole, rng = fit(x, y), np.random.default_rng(seed)
    members = _members(groups)
    angles = []
    for _ in range(replicates):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if _two_sides(y[rows]):
            angles.append(np.degrees(np.arccos(np.clip(cosine(fit(x[rows], y[rows]), whole), -1, 1))))
    tail = 50 * (1 - level)
    if not angles:
        return float("nan"), float("nan")
    return float(np.percentile(angles, tail)), float(np.percentile(angles, 100 - tail))


def split_cosine(
    fit: Fit, x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"], groups: Sequence[str], seed: int = 0
) -> float:
    """Return the cosine between the directions fitted to two random halves of the question groups.

    The result is nan if all rows of a half have the same score.
    """
    members = _members(groups)
    order = np.random.default_rng(seed).permutation(len(members))
    halves = [
        np.concatenate([members[i] for i in part] or [np.empty(0, dtype=int)])
        for part in np.array_split(order, 2)
    ]
    if not all(_two_sides(y[half]) for half in halves):
        return float("nan")
    a, b = (fit(x[half], y[half]) for half in halves)
    return cosine(a, b)


def rank_correlation(
    readings: Float[np.ndarray, " prompt"],
    effects: Float[np.ndarray, " prompt"],
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return the Spearman correlation over prompts between a direction's readings and effects on the answer.

    The reading of a prompt is the change that it causes in the projection on the direction. The interval is a
    percentile bootstrap over the prompts.

    Args:
        readings: Change of the projection under each prompt.
        effects: Change of the answer's log-odds under each prompt.
        replicates: Number of bootstrap draws of prompts.
        seed: Seed of the draws.
        level: Level of the interval.

    Returns:
        The correlation, and the lower and the upper end of its interval.

    Raises:
        UserError: There are fewer than 3 prompts, or the lengths differ.
    """
    if len(readings) != len(effects) or len(readings) < 3:
        raise UserError(
            f"a rank correlation needs at least 3 prompts: found {len(readings)} readings and {len(effects)} effects"
        )
    rows = np.random.default_rng(seed).integers(len(readings), size=(replicates, len(readings)))
    draws = _row_spearman(readings[rows], effects[rows])
    draws = draws[np.isfinite(draws)]
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail]) if len(draws) else (np.nan, np.nan)
    return spearman(readings, effects), float(low), float(high)


def letter_direction(
    x: Float[Tensor, "n d_model"], first_shown: Bool[Tensor, " n"]
) -> Float[Tensor, " d_model"]:
    """Return the direction of the letter A, a confound of directions that are fitted to answers by letter.

    It is the mean activation of rows whose answer is the option shown first (A) minus that of the other rows;
    zeros if all rows are of one kind.
    """
    if not bool(first_shown.any()) or bool(first_shown.all()):
        return torch.zeros(x.shape[1])
    return x[first_shown].mean(dim=0) - x[~first_shown].mean(dim=0)


def length_correlation(readings: Float[Tensor, " n"], lengths: Sequence[int]) -> float:
    """Return the Spearman correlation of a direction's readings with the numbers of tokens of the texts.

    A reading is the projection of a text's activation on the direction. A correlation near 1 or -1 means that
    the direction measures length.
    """
    return spearman(readings.double().numpy(), np.asarray(lengths, dtype=float))


def _row_spearman(
    a: Float[np.ndarray, "replicate n"], b: Float[np.ndarray, "replicate n"]
) -> Float[np.ndarray, " replicate"]:
    """Return Spearman's correlation of each row of a with the same row of b.

    It is nan if one of the two rows does not vary.
    """
    ranks = [rankdata(m, axis=1) - (m.shape[1] + 1) / 2 for m in (a, b)]
    spread = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    return np.divide(
        (ranks[0] * ranks[1]).sum(axis=1), spread, out=np.full(len(spread), np.nan), where=spread > 0
    )


def _members(groups: Sequence[str]) -> list[np.ndarray]:
    """Return the row indices of each group, with the groups sorted by name."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return [np.flatnonzero(index == i) for i in range(len(names))]


def _two_sides(y: Tensor) -> bool:
    return len(y) >= 2 and float(y.max() - y.min()) > 0
