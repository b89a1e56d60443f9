"""Logistic probe: scikit-learn's L2-regularised logistic regression on standardised activations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from workbench.directions.class_split import positive, scaled
from workbench.directions.direction_method import DirectionMethod, register_direction_method


def logistic_probe(
    x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"], strength: float = 0.01
) -> Float[Tensor, " d_model"]:
    """Fit a logistic regression of "shows the persona" (`positive`) on standardised activations.

    Args:
        x: Activations [n, d_model], one row per sequence.
        y: Score of each row (plus = shows the persona).
        strength: scikit-learn's C (inverse regularisation); small, because there are often fewer rows than
            dimensions.

    Returns:
        The regression weights in the activations' own units, scaled to the distance between the class means.
    """
    shown = positive(y)
    spread = x.std(dim=0).clamp(min=1e-6)
    probe = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    probe.fit(((x - x.mean(dim=0)) / spread).numpy(), shown.numpy())
    return scaled(torch.from_numpy(probe.coef_[0]).to(x.dtype) / spread, x, y)


register_direction_method(
    DirectionMethod(
        "logistic",
        "choice",
        logistic_probe,
        "logistic probe of the model's own choice",
        replicates=0,
        default_place=3,
    )
)
