"""Principal direction of differences: representation engineering (Zou et al. 2023).

It is the first right singular vector of the pairs' differences, which are not centred: their mean is what is
looked for.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.directions.class_split import scaled
from workbench.directions.direction_method import DirectionMethod, register_direction_method
from workbench.errors import UserError


def principal_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """First right singular vector of the differences of pairs, turned so that the matching side reads higher.

    Rows come in pairs: the i-th row with y > 0 and the i-th row with y <= 0 belong together.
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
