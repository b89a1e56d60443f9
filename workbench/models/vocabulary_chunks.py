"""Log-probabilities over a large vocabulary without keeping its logits in memory.

1. Positions and vocabulary are cut into chunks of at most `CHUNK` logits; the unembedding rows of a chunk are
   converted to float32.
2. Each chunk gives one log(sum(exp(logits))) per position; a last logsumexp combines them.
3. The backward pass computes each chunk's logits again (the softmax of a chunk needs only the total), so a
   gradient needs no more memory than a score, as in cut cross-entropy (Wijmans et al. 2024, arXiv
   2411.09009).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

#: Largest number of logits computed at a time (64 MB in float32).
CHUNK = 2**24


def log_normalizer(
    normed: Float[Tensor, "position d_model"],
    weight: Float[Tensor, "d_vocab d_model"],
    bias: Float[Tensor, " d_vocab"] | None,
    softcap: float = 0.0,
) -> Float[Tensor, " position"]:
    """Return log(sum(exp(logits))) over the vocabulary, in float32, differentiable in `normed` only.

    Args:
        normed: Residuals after the final norm, float32 (or float64).
        weight: The unembedding, one row per token, in any dtype.
        bias: Added to the logits; None for none.
        softcap: If above 0, logits are softcap x tanh(logits / softcap).
    """
    return _LogNormalizer.apply(normed, weight, bias, softcap)


def row_chunks(rows: int, d_vocab: int) -> Iterator[slice]:
    """Split rows into slices whose logits over the whole vocabulary are at most `CHUNK` numbers.

    A slice has at least one row.
    """
    size = max(1, CHUNK // d_vocab)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


class _LogNormalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normed: Tensor, weight: Tensor, bias: Tensor | None, softcap: float) -> Tensor:
        parts = []
        for rows in _positions(normed):
            totals = [
                _chunk(normed[rows], weight, bias, softcap, tokens)[0].logsumexp(-1)
                for tokens in _tokens(normed[rows], weight)
            ]
            parts.append(torch.stack(totals).logsumexp(0))
        total = torch.cat(parts) if parts else normed.new_zeros(0)
        ctx.save_for_backward(normed, weight, bias, total)
        ctx.softcap = softcap
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        normed, weight, bias, total = ctx.saved_tensors
        out = torch.zeros_like(normed)
        for rows in _positions(normed):
            for tokens in _tokens(normed[rows], weight):
                logits, table = _chunk(normed[rows], weight, bias, ctx.softcap, tokens)
                chances = (logits - total[rows, None]).exp() * grad[rows, None]
                if ctx.softcap > 0:
                    chances = chances * (1 - (logits / ctx.softcap) ** 2)
                out[rows] += chances @ table
        return out, None, None, None


def _chunk(
    normed: Tensor, weight: Tensor, bias: Tensor | None, softcap: float, tokens: slice
) -> tuple[Tensor, Tensor]:
    """Logits of some tokens, and these tokens' rows of the unembedding, in float32."""
    table = weight[tokens].to(normed.dtype)
    logits = normed @ table.T
    if bias is not None:
        logits += bias[tokens].to(normed.dtype)
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    return logits, table


def _positions(normed: Tensor) -> Iterator[slice]:
    return (slice(start, start + 1024) for start in range(0, len(normed), 1024))


def _tokens(normed: Tensor, weight: Tensor) -> Iterator[slice]:
    """Split the vocabulary so that a chunk's logits and float32 rows are together at most `CHUNK` numbers."""
    size = max(1, CHUNK // (len(normed) + weight.shape[1]))
    return (slice(start, start + size) for start in range(0, len(weight), size))
