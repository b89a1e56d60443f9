"""Choose a search's batch size by the free memory, and halve it if memory runs out nevertheless.

1. The scorer cuts everything it runs, contexts as well as candidates, into batches of `BatchSize.tokens`
   tokens (forward) or `BatchSize.gradient_tokens` (with a graph); logits are computed for a bounded number of
   positions. So the peak does not grow with candidates, contexts or vocabulary. A small part does grow: the
   table of log-probabilities of parents x length x vocabulary.
2. The plan is measured, so that it holds for any architecture: a step on as few contexts as fill a batch runs
   at two small batch sizes, the allocator's peaks are read, and the line through both gives bytes per token.
3. The batch size is the largest power of two whose peak stays within a fraction of the free memory, and at
   most `ceiling`. Two runs on one machine get the same batch size, and so the same bits; checkpoints save it.
   If a generous estimate from the sizes alone (`fits_in_memory`) fits, the ceiling is used and nothing is
   measured.
4. An out-of-memory error halves the batch size, and the failed operation runs again as a whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Runner
from workbench.models.memory_estimate import LargestBatch, memory_needed
from workbench.models.memory_in_use import free_memory, give_back, is_out_of_memory, peak_memory

SMALLEST = 16
#: Logits (numbers) that may be computed at a time, per token of a batch: at 8192 tokens, 170 positions of a
#: vocabulary of 49k.
LOGITS_PER_TOKEN = 1024
#: Largest number of tokens per batch, by kind of device (powers of two).
CEILING = {"cpu": 8192, "mps": 16384, "cuda": 65536}


@dataclass
class BatchSize:
    """Batch size in tokens, halved when memory runs out.

    The scorer of prompts and the objects that run its passes have one instance in common, so that halving
    affects all of them.

    Attributes:
        tokens: Tokens per batch without gradients.
        gradient_tokens: Tokens per batch with an autograd graph.
    """

    tokens: int = 8192
    gradient_tokens: int = 2048

    def halve(self) -> None:
        """Halve the batch sizes with and without gradients; UserError if they already are the smallest."""
        if self.tokens <= SMALLEST:
            raise UserError(
                f"out of memory with batches of {self.tokens} tokens: a smaller model, dtype or context is needed"
            )
        self.tokens, self.gradient_tokens = self.tokens // 2, max(SMALLEST, self.gradient_tokens // 2)


def halve_on_out_of_memory(run: Callable) -> Callable:
    """Decorate a method so that it runs again with half the batch size when memory runs out.

    Args:
        run: A method of an object that has the attributes `chunk` (a `BatchSize`, which is halved) and
            `runner`.
    """

    @wraps(run)
    def attempt(self: Any, *args: Any, **named: Any) -> Any:
        while True:
            try:
                return run(self, *args, **named)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.chunk.halve()
            gc.collect()
            give_back(self.runner.device)

    return attempt


@dataclass(frozen=True)
class MemoryLine:
    """Linear model of the memory that one kind of pass needs: bytes = at_rest + per_token * tokens.

    Attributes:
        at_rest: Bytes that do not depend on the number of tokens.
        per_token: Bytes per token of a batch.
    """

    at_rest: float
    per_token: float

    @classmethod
    def through(cls, few: tuple[int, int], many: tuple[int, int]) -> MemoryLine:
        """Fit memory as a linear function of a batch's tokens, from two measurements.

        Args:
            few: (tokens, bytes) of the smaller batch.
            many: (tokens, bytes) of the larger batch.
        """
        slope = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return cls(few[1] - slope * few[0], slope)

    def at(self, tokens: int) -> float:
        """Return the estimated bytes of a batch of `tokens` tokens."""
        return self.at_rest + self.per_token * tokens

    def most_tokens(self, room: float, ceiling: int) -> int:
        """Return the number of tokens (a power of two) of the largest batch that fits into `room` bytes.

        Args:
            room: Bytes that may be used.
            ceiling: Largest number of tokens, a power of two.

        Returns:
            A number of tokens up to `ceiling`; `SMALLEST` if nothing fits.
        """
        tokens = ceiling
        while tokens > SMALLEST and self.at(tokens) > room:
            tokens //= 2
        return tokens


@dataclass(frozen=True)
class BatchSizePlan:
    """Estimated memory of a search step, and the batch sizes that fit into the free memory.

    Attributes:
        forward: Bytes of a pass without gradients as a function of its tokens; weights and cached prefixes
            not included.
        gradient: Bytes of a pass with gradients as a function of its tokens; weights and cached prefixes not
            included.
        room: Bytes that may be used.
        ceiling: Largest number of tokens per batch.
        least: Tokens of all parents (the prompts that a step changes) together; they are one batch whatever
            the batch size.
    """

    forward: MemoryLine
    gradient: MemoryLine
    room: float
    ceiling: int
    least: int = 0

    @property
    def chunk(self) -> BatchSize:
        """Largest batch size whose estimated memory fits into `room` bytes."""
        tokens = self.forward.most_tokens(self.room, self.ceiling)
        return BatchSize(tokens, self.gradient.most_tokens(self.room, max(SMALLEST, self.ceiling // 4)))

    @property
    def peak(self) -> float:
        """Bytes that a search step is expected to hold at most, without weights and cached prefixes."""
        return max(
            self.forward.at(max(self.chunk.tokens, self.least)), self.gradient.at(self.chunk.gradient_tokens)
        )


def fits_in_memory(
    runner: Runner, contexts: Contexts, length: int, chunk: BatchSize, share: float = 0.5
) -> bool:
    """Whether a batch of this size certainly fits into the free memory, by an estimate on the safe side.

    The estimate counts every row as a whole sequence with its own copy of keys and values, and doubles the
    estimates of `models/memory_estimate.py`.

    Args:
        runner: The model's runner.
        contexts: The search's questions, rendered as chats into which the prompts are inserted.
        length: Tokens of a prompt.
        chunk: The batch size in tokens, with and without gradients.
        share: Fraction of the free memory that may be used.
    """
    free = free_memory(runner.device)
    if free is None:
        return True
    whole = length + max(len(c.sequence(())) for c in contexts)
    rows = chunk.tokens // (length + max(len(c.after_prompt) for c in contexts)) + 1
    number = torch.finfo(runner.dtype).bits // 8
    batch = LargestBatch(rows, whole, rows * chunk.gradient_tokens // chunk.tokens + 1, cached=rows * whole)
    needed = memory_needed(runner.shape, 0, number, batch)
    logits = 3 * 4 * LOGITS_PER_TOKEN * chunk.tokens
    return (
        max(2 * needed.after_cache + 2 * rows * whole * needed.kv_per_token, 2 * needed.gradient) + logits
        < share * free
    )


def plan_batch_size(
    forward: Callable[[int], tuple[int, Callable[[], object]]],
    gradient: Callable[[int], tuple[int, Callable[[], object]]],
    unit: int,
    least_unit: int,
    device: torch.device,
    least: int,
    at_rest: int,
    share: float = 0.8,
) -> BatchSizePlan | None:
    """Plan the batch size from the measured memory of two kinds of passes, without and with gradients.

    Fit a line through two measurements of each, and choose the largest batches whose memory fits.

    Args:
        forward: Function that prepares a batch of at most a given number of tokens without gradients. It
            returns the batch's actual number of tokens and a function that runs it.
        gradient: The same function for a batch with gradients.
        unit: Number of tokens. Batches of two and of six times `unit` tokens are measured; if they do not fit
            into memory, `unit` is halved.
        least_unit: Number of tokens below which `unit` is not halved.
        device: Device of the model.
        least: Tokens of all parents (the prompts that a step changes) together; they always are one batch.
        at_rest: Bytes that a search step needs in addition to the measured batches: tables of
            log-probabilities of the parents, and residuals of their changed copies.
        share: Fraction of the free memory that may be used.

    Returns:
        The plan, or None if the device's memory cannot be read.
    """
    free, lines = free_memory(device), []
    for stage in (forward, gradient):
        points = [
            (tokens, peak) for tokens, peak in _tried(stage, unit, least_unit, device) if peak is not None
        ]
        if free is None or len(points) < 2:
            return None
        lines.append(MemoryLine.through(points[0], points[1]))
    forward_line = MemoryLine(lines[0].at_rest + at_rest, lines[0].per_token)
    return BatchSizePlan(forward_line, lines[1], share * free, CEILING[device.type], least)


def _tried(
    stage: Callable[[int], tuple[int, Callable[[], object]]], unit: int, least_unit: int, device: torch.device
) -> list[tuple[int, int | None]]:
    """Measure (tokens, bytes at the peak) of a stage at two and six units."""
    try:
        return [(tokens, _peak(run, device)) for tokens, run in (stage(2 * unit), stage(6 * unit))]
    except RuntimeError as error:
        if unit <= least_unit or not is_out_of_memory(error):
            raise
    gc.collect()
    give_back(device)
    return _tried(stage, max(least_unit, unit // 2), least_unit, device)


def _peak(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of a second run.

    The first run creates tensors that are kept (rotary tables, masks, workspaces).
    """
    run()
    gc.collect()
    with peak_memory(device) as peak:
        run()
    return peak.bytes
