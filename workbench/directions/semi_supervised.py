"""Directions from few labelled pairs and many unlabelled rows (named as future work in arXiv 2601.02896).

The labelled pairs give a mean difference that is right on average and noisy in every dimension. Unlabelled
activations of the same position tell which axes the residual stream varies along at all; noise outside of
them is cut away, and inside them it counts by what the rows' own two clusters support:

1. The unlabelled rows (and the labelled ones) are centred; the top `axes` principal axes are kept, as many as
   hold `share` of the variance.
2. In them, Fisher's discriminant of the labelled rows with the *pooled* covariance of all rows, shrunk
   (Ledoit and Wolf), is the start.
3. Self-training (`rounds`): all rows are read along it; those beyond the middle half, on either side, are
   taken as labelled, with weight `trust` times that of a true label; the mean difference is made again in the
   kept axes. A round whose direction would read the true labels worse is not taken.

With no unlabelled rows it is the mean difference in the labelled rows' own span. Whether it helps is a
measurement (benchmarks/labels.py).
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
    """The direction; sign and length as in direction_method.py. x, y: labelled rows and their scores. unlabelled: rows of the same site and position.

    Raises UserError where widths differ or one side has no label.
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
    """The fewest principal axes that hold `share` of the variance of x, strongest first."""
    _, singular, axes = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    held = singular.square().cumsum(0) / singular.square().sum()
    return axes[: min(int((held < share).sum()) + 1, len(axes))]


def _discriminant(labelled: Tensor, y: Tensor, everything: Tensor) -> Float[Tensor, " axis"]:
    """Mean difference of the labelled rows, divided by the variance of all rows along each axis, half shrunk to their mean."""
    variance = everything.var(dim=0)
    return mean_difference(labelled, y) / (0.5 * variance + 0.5 * variance.mean()).clamp(min=1e-12)


def _self_trained(
    everything: Tensor, labelled: Tensor, y: Tensor, vector: Tensor, trust: float
) -> Float[Tensor, " axis"]:
    """Mean difference with the outer rows of the reading taken as labelled."""
    reading = everything @ vector
    low, high = reading.quantile(0.25), reading.quantile(0.75)
    guessed = everything[reading >= high].mean(dim=0) - everything[reading <= low].mean(dim=0)
    true = mean_difference(labelled, y)
    weight = trust * len(everything) / 2
    known = float(len(labelled))
    return (
        known * true / true.norm().clamp(min=1e-12) + weight * guessed / guessed.norm().clamp(min=1e-12)
    ) / (known + weight)
