"""Join sequences of unequal length into one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def pad_right(sequences: Sequence[Sequence[int]], value: int = 0) -> Int[Tensor, "batch pos"]:
    """Join sequences of ids into one tensor, padded on the right with `value`.

    Padding does not change the results, since a causal model never looks to the right.
    """
    longest = max(len(s) for s in sequences)
    return torch.tensor([[*s, *([value] * (longest - len(s)))] for s in sequences], dtype=torch.long)
