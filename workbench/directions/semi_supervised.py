"""Fit directions to few labelled rows and many unlabelled ones (named as future work in arXiv 2601.02896).

The mean difference of few labelled rows is right on average but noisy in every dimension. Unlabelled
activations of the same position show along which axes the residual stream varies at all. Noise outside of
these axes is removed, and the two clusters of all rows refine the direction inside:

1. All rows are centred, and the fewest principal axes that hold the fraction `share` of their variance are
   kept.
2. In these axes the direction starts as the mean difference of the labelled rows, divided by the variance of
   all rows along each axis (half shrunk to the mean variance).
3. Self-training, up to `rounds` times: all rows are projected on the direction, and the lowest and the
   highest quarter count as labelled. Their mean difference is averaged with the true labels' one, with
   `trust` as the weight of a guessed label relative to a true one. Rounds end when the new direction
   separates the true labels worse.

benchmarks/labels.py measures whether this helps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.directions.class_split import positive, scaled
from workbench.directions.direction_quality import auc
from workbench.directions.methods import mean_difference
from workbench.errors import UserError


def semi_supervised(
    x: Float[Tensor, "n d_model"],
    y: Float[Tensor, " n"],
    unlabelled: Float[Tensor, "m d_model"],
    share: float = 0.9,
    rounds: int = 3,
    trust: float = 0.25,
) -> Float[Tensor, " d_model"]:
    """Fit a direction to labelled and unlabelled activations of the same layer, hook and token position.

    Args:
        x: Labelled activations.
        y: Score of each labelled row (plus = shows the persona).
        unlabelled: Activations without labels.
        share: Fraction of the variance that the kept principal axes hold, above 0 and at most 1.
        rounds: Largest number of self-training rounds.
        trust: Weight of a guessed label relative to a true one.

    Returns:
        The direction; plus = more of the persona. Its length is the distance along it between the mean
        activations of the two classes.

    Raises:
        UserError: Widths differ, all labels are the same, or an option is out of range.
    """
    if unlabelled.shape[1] != x.shape[1]:
        raise UserError(
            f"unlabelled rows of width {unlabelled.shape[1]} do not fit labelled ones of width {x.shape[1]}"
        )
    if not 0 < share <= 1 or rounds < 0 or trust < 0:
        raise UserError(
            f"expected a fraction above 0 and at most 1, rounds and trust from 0, found {share}, {rounds}, {trust}"
        )
    everything = torch.cat([x, unlabelled])
    axes = principal_axes(everything, share)
    inside = (everything - everything.mean(dim=0)) @ axes.T
    labelled, shown = inside[: len(x)], positive(y)
    vector = _discriminant(labelled, y, inside)
    for _ in range(rounds):
        trained = _self_trained(inside, labelled, y, vector, trust)
        if auc(labelled @ trained, shown) < auc(labelled @ vector, shown):
            break
        vector = trained
    return scaled(vector @ axes, x, y)


def principal_axes(x: Float[Tensor, "n d_model"], share: float) -> Float[Tensor, "axis d_model"]:
    """Return the principal axes of activations with the most variance.

    Args:
        x: Activations [n, d_model], one row per sequence.
        share: Fraction of the variance that the axes must hold.

    Returns:
        The fewest axes that do so, strongest first, as rows of length 1.
    """
    _, singular, axes = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    held = singular.square().cumsum(0) / singular.square().sum()
    return axes[: min(int((held < share).sum()) + 1, len(axes))]


def _discriminant(labelled: Tensor, y: Tensor, everything: Tensor) -> Float[Tensor, " axis"]:
    """Return the mean difference of the labelled rows, divided by the variance of all rows along each axis.

    The variances are shrunk half to their mean.
    """
    variance = everything.var(dim=0)
    return mean_difference(labelled, y) / (0.5 * variance + 0.5 * variance.mean()).clamp(min=1e-12)


def _self_trained(
    everything: Tensor, labelled: Tensor, y: Tensor, vector: Tensor, trust: float
) -> Float[Tensor, " axis"]:
    """Return the direction after one round of self-training.

    It is the weighted mean of two unit vectors: the mean difference of the labelled rows, and the difference
    between the highest and the lowest quarter of all rows by their projection on `vector`.
    """
    reading = everything @ vector
    low, high = reading.quantile(0.25), reading.quantile(0.75)
    guessed = everything[reading >= high].mean(dim=0) - everything[reading <= low].mean(dim=0)
    true = mean_difference(labelled, y)
    weight = trust * len(everything) / 2
    known = float(len(labelled))
    return (
        known * true / true.norm().clamp(min=1e-12) + weight * guessed / guessed.norm().clamp(min=1e-12)
    ) / (known + weight)
