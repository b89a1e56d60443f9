"""Sequences of unequal length as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def pad_right(sequences: Sequence[Sequence[int]], value: int = 0) -> Int[Tensor, "batch pos"]:
    """Sequences of ids as one tensor, filled up on the right (a causal model never looks there)."""
    longest = max(len(s) for s in sequences)
    return torch.tensor([[*s, *([value] * (longest - len(s)))] for s in sequences], dtype=torch.long)
