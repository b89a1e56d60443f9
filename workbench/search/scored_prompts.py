"""The values that a search passes around: prompts with their scores, and children with their parents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Ids = Int[Tensor, "candidate prompt_pos"]

#: Fills shorter prompts up on the right where prompts of different lengths share one tensor; never run
#: through a model.
FILLER = -1


def as_ids(prompts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Ids:
    """Prompts of any lengths as one tensor."""
    longest = max(map(len, prompts), default=0)
    rows = [[*prompt, *[FILLER] * (longest - len(prompt))] for prompt in prompts]
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(prompts), longest)


def as_prompts(ids: Ids) -> list[tuple[int, ...]]:
    """The prompts of a tensor, without filler."""
    return [tuple(token for token in row if token != FILLER) for row in ids.tolist()]


def by_length(ids: Ids) -> Iterable[tuple[int, Int[Tensor, " row"]]]:
    """(length, rows) of the prompts of each length."""
    lengths = (ids != FILLER).sum(1)
    for length in lengths.unique().tolist():
        yield length, (lengths == length).nonzero()[:, 0]


@dataclass(frozen=True)
class ScoredPrompts:
    """Prompts (shorter ones filled up with `FILLER`) with their scores.

    objective: as maximised, -inf where it was dropped; fluency: nats per token (lower is better), +inf where
    it was not needed because the prompt cannot win.
    """

    ids: Ids
    objective: Float[Tensor, " candidate"]
    cross_entropy: Float[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)

    def pick(self, index: Tensor) -> ScoredPrompts:
        """Some of the prompts, in the order of the index (or where a mask is true)."""
        return ScoredPrompts(self.ids[index], self.objective[index], self.cross_entropy[index])

    def on_host(self) -> ScoredPrompts:
        """The same on the CPU: scores in one copy, for which a GPU's host waits once."""
        if self.objective.device.type == "cpu":
            return ScoredPrompts(self.ids.cpu(), self.objective, self.cross_entropy)
        objective, cross_entropy = torch.stack([self.objective, self.cross_entropy]).cpu()
        return ScoredPrompts(self.ids.cpu(), objective, cross_entropy)

    def join(self, other: ScoredPrompts) -> ScoredPrompts:
        """These prompts and after them the other ones."""
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
    """Children: whole ids, the row of their parent, and the first position at which they differ from it."""

    ids: Ids
    parent: Int[Tensor, " candidate"]
    position: Int[Tensor, " candidate"]

    def to(self, device: torch.device | str) -> ChildProposals:
        """The same on a device."""
        return ChildProposals(self.ids.to(device), self.parent.to(device), self.position.to(device))

    def __len__(self) -> int:
        return len(self.ids)
