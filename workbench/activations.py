"""Read activations at chosen sites and positions, for many sequences or as a stream for SAE training.

1. Sequences are sorted by length and cut into batches of at most `batch_tokens` tokens, padded on the right.
   No attention mask is needed, because a causal model never attends to positions on the right.
2. Only the blocks up to the highest site are run, and only the requested positions are kept, as float32 on
   the CPU. Outputs of blocks (`resid_post`) need no hook; every other site is read through a hook, and an
   error says so if the hook did not fire.
3. `positions` says which token of each sequence is read at a site: one token, or a stretch of tokens whose
   mean is taken. Sites with different position rules can have different positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Runner, Site, not_finite, pad_right, runner_for

#: One token of a sequence (negative counts from its end), or [start, stop), over which the mean is taken.
Where = int | tuple[int, int]
Positions = Sequence[Where] | Mapping[str, Sequence[Where]] | None


def collect(
    model: Any,
    sequences: Sequence[Sequence[int]],
    sites: Sequence[Site],
    positions: Positions = None,
    batch_tokens: int = 8192,
) -> dict[Site, Float[Tensor, "n d_model"]]:
    """Read the model's activations at the given sites, one vector per sequence and site.

    Args:
        model: A loaded model or its runner.
        sequences: Token ids of each sequence.
        sites: Where in the model to read (`Site`).
        positions: Which token of each sequence to read. A list has one entry per sequence: an index, or a
            (start, stop) stretch whose mean is taken. None: the last token. If the sites have different
            values of `Site.position` ("decision", "answer" or "response_mean"), give a dictionary from each
            of these values to such a list.
        batch_tokens: Most tokens in one batch, padding included.

    Returns:
        For each site, float32 [sequence, d_model] on the CPU, in the order of the sequences. `z` sites
        (outputs of attention heads) keep their head axis.

    Raises:
        UserError: A site or position does not exist, or a sequence is longer than the model's context.

    Example:
        >>> site = wb.Site(2)
        >>> states = wb.collect(model, [context.bare_ids for context in contexts], [site])[site]
        >>> states.shape == (len(contexts), wb.runner_for(model).shape.d_model)
        True
    """
    runner = runner_for(model)
    sites = [site.checked(runner.shape.n_layers) for site in dict.fromkeys(sites)]
    _check_sequences(runner, sequences)
    spans = {site: _spans(site, positions, sequences) for site in sites}
    kept: dict[Site, list[Tensor]] = {site: [torch.empty(0)] * len(sequences) for site in sites}
    last = _single(spans, max(site.layer for site in sites))
    for batch in length_batches(sequences, runner.at_most(batch_tokens)):
        states = read_all(
            runner, [sequences[i] for i in batch], sites, [last[i] for i in batch] if last else None
        )
        for site in sites:
            for row, i in enumerate(batch):
                start, stop = spans[site][i] if states[site].shape[1] > 1 else (0, 1)
                kept[site][i] = states[site][row, start:stop].float().mean(dim=0).cpu()
    found = {site: torch.stack(rows) for site, rows in kept.items()}
    check_states(runner, sequences, found)
    return found


def check_states(
    runner: Runner, sequences: Sequence[Sequence[int]], states: Mapping[Site, Float[Tensor, "n ..."]]
) -> None:
    """Raise an error if an activation is not a finite number.

    Args:
        runner: The model's runner.
        sequences: Token ids of the sequences that were run.
        states: Activations of each site, one row per sequence.

    Raises:
        UserError: An activation is NaN or infinite. The message names the site and the first block whose
            output is not finite.
    """
    for site, x in states.items():
        bad = (~x.isfinite().flatten(1).all(1)).nonzero()
        if len(bad):
            where = not_finite(runner, sequences[int(bad[0, 0])])
            raise UserError(f"an activation at {site.name} is no finite number: {where}")


@torch.no_grad()
def read_all(
    runner: Runner,
    sequences: Sequence[Sequence[int]],
    sites: Sequence[Site],
    last: Sequence[int] | None = None,
) -> dict[Site, Float[Tensor, "batch pos d_model"]]:
    """Run one right-padded batch and return its activations at all positions, in the model's dtype.

    Args:
        runner: The model's runner.
        sequences: Token ids of each row.
        sites: Where in the model to read.
        last: The one position of each row that is needed at the highest site, to save computation. That site
            must be the output of a block; the block's output projection and MLP are then computed at this
            position only. None: all positions.

    Returns:
        For each site, [batch, pos, d_model]; if `last` is given, [batch, 1, d_model] at the highest site.
        Values at padding positions are meaningless.
    """
    ids = pad_right(sequences).to(runner.device)
    found: dict[Site, Tensor] = {}
    plain = [site for site in sites if site.hook == "resid_post"]
    with ExitStack() as stack:
        for site in sites:
            if site.hook != "resid_post":
                stack.enter_context(runner.edit(site.name, _keeper(found, site)))
        resid, at, top = runner.embed(ids), 0, max(site.layer for site in sites)
        for layer in sorted({site.layer for site in sites}):
            if last is not None and layer == top:
                resid = runner.run_at(resid, at, layer + 1, torch.tensor(last, device=resid.device))
            else:
                resid, _ = runner.run(resid, at, layer + 1)
            at = layer + 1
            found.update({site: resid for site in plain if site.layer == layer})
    return found


def length_batches(sequences: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of indices of the sequences, the shortest sequences first.

    Args:
        sequences: Token ids of each sequence.
        batch_tokens: Most tokens in a batch: number of rows x length of its longest row. A longer sequence is
            a batch alone.

    Yields:
        Indices of the sequences of one batch.
    """
    batch: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i)):
        if batch and (len(batch) + 1) * len(sequences[i]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@dataclass(frozen=True)
class ActivationStore:
    """An endless, shuffled stream of activation vectors at one site, for training an SAE.

    The stream is cut into chunks of about `chunk_tokens` vectors. Which sequences are in a chunk, and the
    order of its vectors, depend only on the seed and the number of the chunk, so a resumed stream
    (`batches(start)`) continues with exactly the same vectors. If all vectors fit into `keep_bytes`, the
    model is run over the text only once and the vectors are kept in memory. Position 0 of each sequence is
    left out: without a BOS token it is an attention sink, whose activations are hundreds of times as long as
    the others.
    """

    model: Any
    sequences: tuple[tuple[int, ...], ...]
    site: Site
    batch_size: int = 512
    chunk_tokens: int = 65536
    batch_tokens: int = 8192
    seed: int = 0
    keep_bytes: int = 2**30

    def __post_init__(self) -> None:
        runner = runner_for(self.model)
        self.site.checked(runner.shape.n_layers)
        _check_sequences(runner, self.sequences)
        if self.tokens_per_epoch < self.batch_size:
            raise UserError(
                f"{self.tokens_per_epoch} tokens of text are fewer than one batch of {self.batch_size}: give more text"
            )

    @property
    def tokens_per_epoch(self) -> int:
        """Number of activation vectors in one pass over the sequences (all tokens but the first of each)."""
        return sum(max(len(s) - 1, 0) for s in self.sequences)

    def batches(self, start: int = 0) -> Iterator[Float[Tensor, "batch d_model"]]:
        """Yield batches of activation vectors without end, beginning with batch number `start`.

        Args:
            start: Number of the first batch to yield. Chunks before this batch are not computed.

        Yields:
            float32 [batch_size, d_model].
        """
        skip = start
        for number, members in enumerate(self._chunks()):
            n_batches = sum(len(self.sequences[i]) - 1 for i in members) // self.batch_size
            if skip >= n_batches:
                skip -= n_batches
                continue
            vectors = self._vectors(members, number)
            yield from vectors[: n_batches * self.batch_size].split(self.batch_size)[skip:]
            skip = 0

    def _chunks(self) -> Iterator[list[int]]:
        """Yield the indices of the sequences of each chunk; every epoch has all sequences in a new order."""
        usable = [i for i, s in enumerate(self.sequences) if len(s) > 1]
        epoch, chunk, size = 0, [], 0
        while True:
            for i in np.random.default_rng([self.seed, epoch]).permutation(usable).tolist():
                chunk.append(i)
                size += len(self.sequences[i]) - 1
                if size >= max(self.chunk_tokens, self.batch_size):
                    yield chunk
                    chunk, size = [], 0
            epoch += 1

    def _vectors(self, members: list[int], number: int) -> Float[Tensor, "n d_model"]:
        vectors = torch.cat([self._kept[i] for i in members] if self._fits else self._run(members))
        return vectors[
            torch.from_numpy(np.random.default_rng([self.seed, 1, number]).permutation(len(vectors)))
        ]

    @property
    def _fits(self) -> bool:
        """Whether all vectors of the text fit into `keep_bytes`, so that the model runs over it only once."""
        return self.tokens_per_epoch * runner_for(self.model).shape.d_model * 4 <= self.keep_bytes

    @cached_property
    def _kept(self) -> list[Float[Tensor, "n d_model"]]:
        return self._run(range(len(self.sequences)))

    def _run(self, members: Sequence[int]) -> list[Float[Tensor, "n d_model"]]:
        """Compute the vectors of the given sequences: one tensor per sequence, in the order given."""
        runner, texts = runner_for(self.model), [self.sequences[i] for i in members]
        made: list[Tensor] = [torch.empty(0)] * len(texts)
        for batch in length_batches(texts, self.batch_tokens):
            states = (
                read_all(runner, [texts[i] for i in batch], [self.site])[self.site].float().cpu().flatten(2)
            )
            for row, i in enumerate(batch):
                made[i] = states[row, 1 : len(texts[i])].clone()
        return made


def _keeper(found: dict[Site, Tensor], site: Site) -> Callable[[Tensor], Tensor]:
    def keep(activation: Tensor) -> Tensor:
        found[site] = activation.detach().clone()
        return activation

    return keep


def _single(spans: Mapping[Site, Sequence[tuple[int, int]]], layer: int) -> list[int] | None:
    """Return the one position to read in each sequence at this layer, or None if more are needed.

    One is enough if the output of the block (`resid_post`) is the only site of the layer and is read at one
    token.
    """
    top = [site for site in spans if site.layer == layer]
    if len(top) > 1 or top[0].hook != "resid_post" or any(stop - start > 1 for start, stop in spans[top[0]]):
        return None
    return [start for start, _ in spans[top[0]]]


def _check_sequences(runner: Runner, sequences: Sequence[Sequence[int]]) -> None:
    if not sequences:
        raise UserError("no sequences to read activations from")
    lengths = [len(s) for s in sequences]
    if min(lengths) == 0:
        raise UserError(f"sequence {lengths.index(0)} is empty: expected at least one token")
    if max(lengths) > runner.shape.n_ctx:
        raise UserError(
            f"sequence {lengths.index(max(lengths))} has {max(lengths)} tokens: this model's context holds {runner.shape.n_ctx}"
        )


def _spans(site: Site, positions: Positions, sequences: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return (start, stop) of the positions to read in each sequence; UserError if it is outside."""
    if isinstance(positions, Mapping):
        if site.position not in positions:
            raise UserError(
                f"no positions given for the rule {site.position!r} of {site.name}: given are {', '.join(sorted(positions))}"
            )
        positions = positions[site.position]
    if positions is None:
        return [(len(s) - 1, len(s)) for s in sequences]
    if len(positions) != len(sequences):
        raise UserError(
            f"expected one position a sequence: {len(sequences)} sequences, {len(positions)} positions"
        )
    return [_span(where, len(s), i) for i, (where, s) in enumerate(zip(positions, sequences, strict=True))]


def _span(where: Where, length: int, number: int) -> tuple[int, int]:
    if isinstance(where, tuple):
        start, stop = where
    else:
        start = int(where) + (length if where < 0 else 0)
        stop = start + 1
    if not 0 <= start < stop <= length:
        raise UserError(f"position {where} is outside sequence {number}, which has {length} tokens")
    return start, stop
