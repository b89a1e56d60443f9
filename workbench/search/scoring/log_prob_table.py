"""log p(token | left) of the parents for the whole vocabulary: kept as a table while it is small, made when it is needed else.

1. A table of parents x length x vocabulary (float32) is kept up to `WHOLE` numbers.
2. Beyond, the residuals that left the last block and their normalizers are kept. One parent's or one
   position's part is made when it is needed, single tokens from their own columns of the unembedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.models import Runner

#: The most numbers of a table that is kept whole (34 MB): 8 prompts of 8 tokens with 131k tokens, not with
#: 262k.
WHOLE = 1 << 23


class LogProbTable(Protocol):
    """log p(token | left), nats, mean over the fluent prefixes."""

    def parent(self, row: int) -> Float[Tensor, "1 prompt_pos d_vocab"]:
        """Of one parent."""
        ...

    def position(self, position: int) -> Float[Tensor, "candidate d_vocab"]:
        """At one position of all parents."""
        ...

    def tokens(
        self, parent: Int[Tensor, " k"], position: Int[Tensor, " k"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """Of single tokens."""
        ...


class WholeTable(LogProbTable):
    """The table itself."""

    def __init__(self, table: Float[Tensor, "candidate prompt_pos d_vocab"]) -> None:
        self.table = table

    @override
    def parent(self, row: int) -> Float[Tensor, "1 prompt_pos d_vocab"]:
        return self.table[row : row + 1]

    @override
    def position(self, position: int) -> Float[Tensor, "candidate d_vocab"]:
        return self.table[:, position]

    @override
    def tokens(
        self, parent: Int[Tensor, " k"], position: Int[Tensor, " k"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        return self.table[parent, position, ids]


class TableOnRequest(LogProbTable):
    """Made from residuals. first: log p of the first token, mean over the prefixes; tops, normalizers: of the positions before the others."""

    def __init__(
        self,
        runner: Runner,
        first: Float[Tensor, " d_vocab"],
        tops: Sequence[Float[Tensor, "prefix candidate pos d_model"]],
        normalizers: Sequence[Float[Tensor, "prefix candidate pos"]],
    ) -> None:
        self.runner, self.first = runner, first
        self.tops, self.normalizers = torch.cat(list(tops)), torch.cat(list(normalizers))

    @override
    def parent(self, row: int) -> Float[Tensor, "1 prompt_pos d_vocab"]:
        return torch.cat([self.first[None], self._mean(self.tops[:, row], self.normalizers[:, row])])[None]

    @override
    def position(self, position: int) -> Float[Tensor, "candidate d_vocab"]:
        if position == 0:
            return self.first.expand(self.tops.shape[1], -1)
        return self._mean(self.tops[:, :, position - 1], self.normalizers[:, :, position - 1])

    @override
    def tokens(
        self, parent: Int[Tensor, " k"], position: Int[Tensor, " k"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        left = (position - 1).clamp(min=0)
        later = torch.zeros(len(ids), device=ids.device)
        for tops, normalizers in zip(self.tops, self.normalizers, strict=True):
            later += self.runner.logits_of(tops[parent, left], ids[:, None])[:, 0] - normalizers[parent, left]
        return torch.where(position == 0, self.first[ids], later / len(self.tops))

    def _mean(
        self, tops: Float[Tensor, "prefix row d_model"], normalizers: Float[Tensor, "prefix row"]
    ) -> Float[Tensor, "row d_vocab"]:
        """Mean over the prefixes, whose logits are made one after the other."""
        total = torch.zeros(tops.shape[1], self.runner.shape.d_vocab, device=tops.device)
        for of_prefix, normalizer in zip(tops, normalizers, strict=True):
            total += self.runner.logits(of_prefix) - normalizer[:, None]
        return total / len(tops)
