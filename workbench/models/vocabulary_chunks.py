"""Log-probabilities over a large vocabulary without keeping its logits in memory.

1. Positions and vocabulary are cut into chunks of at most `CHUNK` logits; the unembedding rows of a chunk are
   converted to float32.
2. Each chunk gives one log(sum(exp(logits))) per position; a last logsumexp combines them.
3. If a gradient will be needed, the same pass over the chunks also sums exp(logit) x unembedding row, as the
   gradient is the softmax's mean of these rows. A running maximum keeps the sums finite (online softmax,
   Milakov & Gimelshein 2018, arXiv 1805.02867). A gradient so needs no more memory than a score, as in cut
   cross-entropy (Wijmans et al. 2024, arXiv 2411.09009), and no logits twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

#: Largest number of logits computed at a time (64 MB in float32).
CHUNK = 2**24
#: Largest number of logits of a chunk alone (8 MB in float32): what a step of a search may hold for one prompt of
#: 8 tokens and a vocabulary of 262k.
LOGITS = 2**21


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
        wants_slope = ctx.needs_input_grad[0]
        totals, slopes = [], []
        for rows in _positions(normed):
            total, slope = _sums(normed[rows], weight, bias, softcap, wants_slope)
            totals.append(total)
            slopes += [] if slope is None else [slope]
        ctx.save_for_backward(torch.cat(slopes) if slopes else torch.zeros_like(normed))
        return torch.cat(totals) if totals else normed.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0][:, None], None, None, None


def _sums(
    normed: Tensor, weight: Tensor, bias: Tensor | None, softcap: float, wants_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """log(sum(exp(logits))) of each position, and its gradient if it is wanted, chunk by chunk of the vocabulary."""
    totals: list[Tensor] = []
    so_far = normed.new_full((len(normed),), -torch.inf)
    slope = torch.zeros_like(normed) if wants_slope else None
    for tokens in _tokens(normed, weight):
        logits, table = _chunk(normed, weight, bias, softcap, tokens)
        totals.append(logits.logsumexp(-1))
        if slope is not None:
            before, so_far = so_far, torch.logaddexp(so_far, totals[-1])
            slope *= (before - so_far).exp()[:, None]
            chances = (logits - so_far[:, None]).exp_()
            if softcap > 0:
                chances *= 1 - (logits / softcap) ** 2
            slope += chances @ table
    return torch.stack(totals).logsumexp(0), slope


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
    """Split the vocabulary so that a chunk's logits and float32 rows are together at most `CHUNK` numbers.

    The logits alone are at most `LOGITS` numbers.
    """
    size = max(1, min(CHUNK // (len(normed) + weight.shape[1]), LOGITS // max(1, len(normed))))
    return (slice(start, start + size) for start in range(0, len(weight), size))
