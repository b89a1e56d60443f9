"""The values that a search passes around: prompts with their scores, and children with their parents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Ids = Int[Tensor, "candidate prompt_pos"]


@dataclass(frozen=True)
class ScoredPrompts:
    """Prompts of equal length with their scores. objective: as maximised, -inf where it was dropped on the way; fluency:
    nats a token (lower is better), +inf where it was not needed because the prompt cannot win."""

    ids: Ids
    objective: Float[Tensor, " candidate"]
    cross_entropy: Float[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)

    def pick(self, index: Tensor) -> ScoredPrompts:
        """Some of the prompts, in the order of the index (or where a mask is true)."""
        return ScoredPrompts(self.ids[index], self.objective[index], self.cross_entropy[index])

    def join(self, other: ScoredPrompts) -> ScoredPrompts:
        """These prompts and behind them the other ones; both have one length."""
        return ScoredPrompts(*(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("ids", "objective", "cross_entropy")))


@dataclass(frozen=True)
class ChildProposals:
    """Children: whole ids, the row of their parent, and the first position at which they differ from it."""

    ids: Ids
    parent: Int[Tensor, " candidate"]
    position: Int[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)
