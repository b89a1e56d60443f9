"""Objectives that depend only on the prompt's token ids: repetition, and similarity to a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.objectives.objective import Objective


@dataclass(frozen=True, repr=False)
class RepetitionPenalty(Objective):
    """Objective: minus the fraction of the prompt's tokens that also occur earlier in it; 0 is best.

    Example:
        >>> wb.RepetitionPenalty().prompt_score(torch.tensor([[5, 6, 5, 7]])).tolist()
        [-0.25]
    """

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        same = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)
        return -same.float().mean(-1)


@dataclass(frozen=True, repr=False)
class TextSimilarity(Objective):
    """Objective: fraction of positions at which the prompt has the same token as a reference, 0 to 1.

    Attributes:
        reference: Token ids of the reference prompt.

    Example:
        >>> wb.TextSimilarity((5, 6)).prompt_score(torch.tensor([[5, 7]])).tolist()
        [0.5]
    """

    reference: tuple[int, ...]

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        width = min(ids.shape[1], len(self.reference))
        same = ids[:, :width] == torch.tensor(self.reference[:width], device=ids.device)
        return same.float().sum(-1) / max(ids.shape[1], len(self.reference))
