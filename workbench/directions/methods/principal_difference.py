"""Principal direction of differences, as in representation engineering (Zou et al. 2023).

It is the first right singular vector of the pairs' differences, which are not centred, because their mean is
the direction of interest.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.directions.class_split import scaled
from workbench.directions.direction_method import DirectionMethod, register_direction_method
from workbench.errors import UserError


def principal_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Return the first right singular vector of the differences of pairs, with plus = more of the persona.

    The i-th row with y > 0 and the i-th row with y <= 0 are a pair, such as two answers to one question.

    Args:
        x: Activations, one row per answer.
        y: Score of each row, +1 (the answer that shows the persona) or -1.

    Returns:
        The direction, scaled to the distance along it between the mean activations of the two kinds of rows.

    Raises:
        UserError: The numbers of rows with +1 and -1 differ, or there is no row.
    """
    matching, other = x[y > 0], x[y <= 0]
    if len(matching) != len(other) or len(matching) == 0:
        raise UserError(f"pairs expected: found {len(matching)} matching and {len(other)} not matching rows")
    _, _, basis = torch.linalg.svd(matching - other, full_matrices=False)
    return scaled(basis[0], x, y)


register_direction_method(
    DirectionMethod(
        "principal_difference",
        "answer",
        principal_difference,
        "first principal direction of the answer pairs' differences",
        replicates=20,
    )
)
