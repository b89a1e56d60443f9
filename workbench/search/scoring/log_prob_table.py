"""Tables of log p(token | left) of the parents over the whole vocabulary, stored or computed on demand.

1. A table of parents x length x vocabulary (float32) is stored if it has at most `WHOLE` numbers.
2. For a larger one, the residuals after the last block and their normalizers are stored. The part of one
   parent or one position is computed on demand, and single tokens from their own columns of the unembedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.models import Runner

#: Largest number of entries of a table that is stored whole (34 MB): enough for 8 prompts of 8 tokens with a
#: vocabulary of 131k, not of 262k.
WHOLE = 1 << 23


class LogProbTable(Protocol):
    """Table of log p(token | tokens on the left) for prompts, for the whole vocabulary, in nats.

    The log-probabilities are averaged over the prefixes (chat text left of the prompt) of some questions.
    """

    def parent(self, row: int) -> Float[Tensor, "1 prompt_pos d_vocab"]:
        """Return log p of every token of the vocabulary at all positions of one prompt of the table."""
        ...

    def position(self, position: int) -> Float[Tensor, "candidate d_vocab"]:
        """Return log p of every token of the vocabulary at one position of all prompts of the table."""
        ...

    def between(self, start: int, stop: int) -> Float[Tensor, "candidate prompt_pos token"] | None:
        """Return log p of the tokens start..stop-1 at all positions of all prompts.

        Args:
            start: First token of the vocabulary.
            stop: Token after the last one.

        Returns:
            The log-probabilities; None if a part of the vocabulary is no cheaper than the whole.
        """
        ...

    def tokens(
        self, parent: Int[Tensor, " k"], position: Int[Tensor, " k"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """Return the log-probabilities of single tokens from the table.

        Args:
            parent: Row of the prompt, for each token.
            position: Position in the prompt, for each token.
            ids: Token ids.
        """
        ...


class WholeTable(LogProbTable):
    """Table of log p(token | tokens on the left) that is stored as one tensor."""

    def __init__(self, table: Float[Tensor, "candidate prompt_pos d_vocab"]) -> None:
        self.table = table

    @override
    def parent(self, row: int) -> Float[Tensor, "1 prompt_pos d_vocab"]:
        return self.table[row : row + 1]

    @override
    def position(self, position: int) -> Float[Tensor, "candidate d_vocab"]:
        return self.table[:, position]

    @override
    def between(self, start: int, stop: int) -> None:
        return None

    @override
    def tokens(
        self, parent: Int[Tensor, " k"], position: Int[Tensor, " k"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        return self.table[parent, position, ids]


class TableOnRequest(LogProbTable):
    """Table of log p(token | tokens on the left) whose parts are computed from residuals when needed.

    This saves memory for large vocabularies. The log-probabilities are averaged over the prefixes (chat text
    left of the prompt) of some questions.

    Args:
        runner: The model's runner.
        first: log p of every token as a prompt's first one, averaged over the prefixes.
        tops: Residuals after the last block at all positions of the prompts except the last; they predict the
            later tokens.
        normalizers: log(sum(exp(logits))) over the vocabulary at the same positions.
    """

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
    def between(self, start: int, stop: int) -> Float[Tensor, "candidate prompt_pos token"] | None:
        first = self.first[start:stop].expand(self.tops.shape[1], 1, -1)
        later = torch.zeros(*self.tops.shape[1:3], stop - start, device=first.device)
        for of_prefix, normalizers in zip(self.tops, self.normalizers, strict=True):
            logits = self.runner.logits_between(of_prefix, start, stop)
            if logits is None:
                return None
            later += logits - normalizers[..., None]
        return torch.cat([first, later / len(self.tops)], dim=1)

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
        """Mean of the log-probabilities over the prefixes, whose logits are computed one after the other."""
        total = torch.zeros(tops.shape[1], self.runner.shape.d_vocab, device=tops.device)
        for of_prefix, normalizer in zip(tops, normalizers, strict=True):
            total += self.runner.logits(of_prefix) - normalizer[:, None]
        return total / len(tops)
