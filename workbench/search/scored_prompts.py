"""Values that a search passes around: prompts with their scores, and children with their parents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Ids = Int[Tensor, "candidate prompt_pos"]

#: Fills shorter prompts on the right if prompts of different lengths share one tensor; the model never sees
#: it.
FILLER = -1


def as_ids(prompts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Ids:
    """Join prompts into one tensor; shorter ones are filled on the right with `FILLER` (-1)."""
    longest = max(map(len, prompts), default=0)
    rows = [[*prompt, *[FILLER] * (longest - len(prompt))] for prompt in prompts]
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(prompts), longest)


def as_prompts(ids: Ids) -> list[tuple[int, ...]]:
    """Return the prompts of a tensor as tuples of token ids, without the filler of short rows."""
    return [tuple(token for token in row if token != FILLER) for row in ids.tolist()]


def by_length(ids: Ids) -> Iterable[tuple[int, Int[Tensor, " row"]]]:
    """Group prompts by length: yield each length in tokens, with the indices of the rows of that length."""
    lengths = (ids != FILLER).sum(1)
    for length in lengths.unique().tolist():
        yield length, (lengths == length).nonzero()[:, 0]


@dataclass(frozen=True)
class ScoredPrompts:
    """Prompts with their scores.

    Attributes:
        ids: Token ids, one row per prompt; shorter rows are filled on the right with `FILLER` (-1).
        objective: The maximised objective; -inf for prompts that successive halving dropped before they were
            scored on all questions.
        cross_entropy: Nats per token (lower is more fluent); +inf where it was not computed because the
            prompt could not be selected anyway.
    """

    ids: Ids
    objective: Float[Tensor, " candidate"]
    cross_entropy: Float[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)

    def pick(self, index: Tensor) -> ScoredPrompts:
        """Return some of the prompts, selected by index (in that order) or by a Boolean mask."""
        return ScoredPrompts(self.ids[index], self.objective[index], self.cross_entropy[index])

    def on_host(self) -> ScoredPrompts:
        """Return a copy of these prompts and scores on the CPU; both scores are copied in one transfer."""
        if self.objective.device.type == "cpu":
            return ScoredPrompts(self.ids.cpu(), self.objective, self.cross_entropy)
        objective, cross_entropy = torch.stack([self.objective, self.cross_entropy]).cpu()
        return ScoredPrompts(self.ids.cpu(), objective, cross_entropy)

    def join(self, other: ScoredPrompts) -> ScoredPrompts:
        """Concatenate these scored prompts with others.

        If the lengths differ, shorter rows are filled on the right with `FILLER` (-1).
        """
        width = max(self.ids.shape[1], other.ids.shape[1])
        both = [
            torch.nn.functional.pad(s.ids, (0, width - s.ids.shape[1]), value=FILLER) for s in (self, other)
        ]
        return ScoredPrompts(
            torch.cat(both),
            *(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("objective", "cross_entropy")),
        )


@dataclass(frozen=True)
class ChildProposals:
    """Changed prompts (children) that a search method proposes for scoring.

    Attributes:
        ids: Token ids of each child, all of its tokens.
        parent: Row of the prompt that each child was made from, among the parents.
        position: First token position at which each child differs from its parent.
    """

    ids: Ids
    parent: Int[Tensor, " candidate"]
    position: Int[Tensor, " candidate"]

    def to(self, device: torch.device | str) -> ChildProposals:
        """Return a copy of the proposed prompts on another device."""
        return ChildProposals(self.ids.to(device), self.parent.to(device), self.position.to(device))

    def __len__(self) -> int:
        return len(self.ids)
