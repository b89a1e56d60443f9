"""Whitened mean difference: Fisher's linear discriminant with Ledoit and Wolf's (2004) shrinkage.

It is not a default method: with a few hundred rows it separates choices as well as the others (AUC 0.97 on
the organism), but its directions hardly repeat between halves of the data and predict the effects of prompts
far worse.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from workbench.directions.class_split import class_difference, positive, scaled
from workbench.directions.direction_method import DirectionMethod, register_direction_method


def whitened_difference(
    x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"], shrinkage: float | None = None
) -> Float[Tensor, " d_model"]:
    """Return ((1 - s) S + s m I)^-1 times the mean difference, scaled to the distance of the class means.

    S is the within-class covariance, m the mean variance and s the shrinkage. The equation is solved in the
    span of the data, so that d_model may exceed n.

    Args:
        x: Activations [n, d_model], one row per sequence.
        y: Score of each row (plus = shows the persona).
        shrinkage: s, 0 to 1; None for Ledoit and Wolf's.

    Returns:
        The direction; plus = more of the persona.
    """
    shown = positive(y)
    within = x.double().clone()
    within[shown] -= within[shown].mean(dim=0)
    within[~shown] -= within[~shown].mean(dim=0)
    s = float(ledoit_wolf_shrinkage(within.numpy(), assume_centered=True)) if shrinkage is None else shrinkage
    difference = class_difference(x.double(), y)
    _, singular, basis = torch.linalg.svd(within, full_matrices=False)
    variance = singular.square() / len(x)
    floor = s * variance.sum() / x.shape[1]
    inside = basis @ difference
    solved = basis.T @ (inside / ((1 - s) * variance + floor))
    outside = difference - basis.T @ inside
    if floor > 0:
        solved = solved + outside / floor
    return scaled(solved.to(x.dtype), x, y)


register_direction_method(
    DirectionMethod(
        "whitened",
        "choice",
        whitened_difference,
        "whitened mean difference of the model's own choice",
        replicates=0,
    )
)
