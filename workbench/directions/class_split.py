"""Which rows of labelled activations show the persona, and vectors in the units of that split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import UserError


def scaled(
    vector: Float[Tensor, " d_model"], x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]
) -> Float[Tensor, " d_model"]:
    """The vector turned and stretched so that its length is the distance of the two class means along it (plus = persona)."""
    length = vector.norm()
    if not torch.isfinite(length) or length == 0:
        raise UserError(
            "the activations hold no difference between the two sides: a direction of length 0 came out"
        )
    unit = vector / length
    return unit * (unit @ class_difference(x, y).to(vector.dtype))


def positive(y: Float[Tensor, " n"], least: float = 0.1) -> Bool[Tensor, " n"]:
    """Which rows count as showing the persona: y > 0, or y above its median where y > 0 leaves one side below `least`.

    A model that shows the persona nearly always still differs in how strongly; then the stronger half is the
    positive one.
    """
    needs_spread(y)
    sign, median = y > 0, y > y.median()
    if least <= float(sign.float().mean()) <= 1 - least:
        return sign
    if bool(median.any()):
        return median
    return sign if 0 < int(sign.sum()) < len(y) else y > y.mean()


def centred_by(x: Float[Tensor, "n d_model"], keys: Sequence[object]) -> Float[Tensor, "n d_model"]:
    """`x` minus the mean of its rows with the same key (item, say): what is left is what varies within an item."""
    _, index = np.unique([str(key) for key in keys], return_inverse=True)
    where = torch.from_numpy(index)
    total = torch.zeros(int(where.max()) + 1, x.shape[1], dtype=x.dtype).index_add_(0, where, x)
    return x - (total / torch.bincount(where)[:, None])[where]


def needs_spread(y: Tensor) -> None:
    """Refuses scores that are all the same."""
    if len(y) < 2 or float(y.max() - y.min()) == 0:
        raise UserError(f"a direction needs two sides: all {len(y)} rows have the same score")


def class_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Mean of the rows that show the persona minus the mean of the others."""
    shown = positive(y)
    return x[shown].mean(dim=0) - x[~shown].mean(dim=0)
