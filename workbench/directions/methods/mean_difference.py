"""Mean difference of activations, as in CAA (Rimsky et al. 2024) and persona vectors (Chen et al. 2025).

arXiv 2601.02896 uses it with the opposite sign.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from workbench.directions.class_split import class_difference
from workbench.directions.direction_method import DirectionMethod, register_direction_method


def mean_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Return the mean activation of the rows that show the persona minus the mean of the others.

    The function `positive` decides which rows show the persona.

    Args:
        x: Activations [n, d_model], one row per sequence.
        y: Score of each row (plus = shows the persona).

    Returns:
        The direction; plus = more of the persona.
    """
    return class_difference(x, y)


for _method in (
    DirectionMethod(
        "mean_difference",
        "answer",
        mean_difference,
        "mean difference at the answer token, as published",
        default_place=0,
    ),
    DirectionMethod(
        "own_choice",
        "choice",
        mean_difference,
        "mean difference at the decision token, split by the model's own choice",
        default_place=1,
    ),
    DirectionMethod(
        "response_mean", "response", mean_difference, "mean difference over response tokens (persona vectors)"
    ),
):
    register_direction_method(_method)
