"""Weighted mean difference: rows count in proportion to their |log-odds|, so undecided items hardly count."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from workbench.directions.class_split import needs_spread, scaled
from workbench.directions.direction_method import DirectionMethod, register_direction_method


def weighted_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Return the mean difference of activations, with each row weighted by its score.

    The weights are |y - mean(y)|; up to its length the result is the covariance of activations and log-odds.

    Args:
        x: Activations [n, d_model], one row per sequence.
        y: Score of each row, usually log-odds (plus = shows the persona).

    Returns:
        The direction, scaled to the distance between the class means along it.
    """
    weight = (y - y.mean()).to(x.dtype)
    needs_spread(weight)
    up, down = weight.clamp(min=0), (-weight).clamp(min=0)
    return scaled(up @ x / up.sum() - down @ x / down.sum(), x, y)


register_direction_method(
    DirectionMethod("own_choice_weighted", "choice", weighted_difference, "own choice, weighted by log-odds")
)
register_direction_method(
    DirectionMethod(
        "own_choice_within",
        "choice_within",
        weighted_difference,
        "own choice weighted by log-odds, within contexts",
        default_place=2,
    )
)
