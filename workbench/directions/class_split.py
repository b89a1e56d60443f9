"""Decide which labelled activations show the persona, and scale vectors by the distance of the classes."""

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
    """Scale a direction to the distance between two classes along it, with plus = more of the persona.

    The classes are the rows that show the persona and the other rows.

    Args:
        vector: A vector of any length and sign.
        x: Activations, one row per sequence.
        y: Score of each row (plus = shows the persona).

    Returns:
        The vector in units of the residual stream.

    Raises:
        UserError: The vector is zero or not finite.
    """
    length = vector.norm()
    if not torch.isfinite(length) or length == 0:
        raise UserError(
            "the activations hold no difference between the two sides: a direction of length 0 came out"
        )
    unit = vector / length
    return unit * (unit @ class_difference(x, y).to(vector.dtype))


def positive(y: Float[Tensor, " n"], least: float = 0.1) -> Bool[Tensor, " n"]:
    """Return which rows count as showing the persona.

    These are the rows with y > 0. If that leaves less than the fraction `least` of the rows in one class,
    they are the rows with y above its median: a model that nearly always shows the persona still differs in
    how strongly.

    Args:
        y: Score of each row (plus = shows the persona).
        least: Smallest fraction of rows that each class must have, 0 to 0.5.

    Returns:
        True for rows that show the persona.

    Raises:
        UserError: All scores are the same.
    """
    needs_spread(y)
    sign, median = y > 0, y > y.median()
    if least <= float(sign.float().mean()) <= 1 - least:
        return sign
    if bool(median.any()):
        return median
    return sign if 0 < int(sign.sum()) < len(y) else y > y.mean()


def centred_by(x: Float[Tensor, "n d_model"], keys: Sequence[object]) -> Float[Tensor, "n d_model"]:
    """Subtract from each row the mean of the rows with the same key; only variation within a key is left.

    Args:
        x: Activations, one row per sequence of tokens.
        keys: Key of each row, such as the question that it is about.

    Returns:
        The centred rows.
    """
    _, index = np.unique([str(key) for key in keys], return_inverse=True)
    where = torch.from_numpy(index)
    total = torch.zeros(int(where.max()) + 1, x.shape[1], dtype=x.dtype).index_add_(0, where, x)
    return x - (total / torch.bincount(where)[:, None])[where]


def needs_spread(y: Tensor) -> None:
    """Raise a UserError if scores cannot define two classes: fewer than two scores, or all are the same."""
    if len(y) < 2 or float(y.max() - y.min()) == 0:
        raise UserError(f"a direction needs two sides: all {len(y)} rows have the same score")


def class_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Return the mean activation of the rows that show the persona minus the mean of the others."""
    shown = positive(y)
    return x[shown].mean(dim=0) - x[~shown].mean(dim=0)
