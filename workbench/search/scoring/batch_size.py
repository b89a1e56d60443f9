"""How much a search runs at a time: planned from what is free, resolved once, halved when memory runs out after all.

1. Everything the scorer runs is cut into batches of `BatchSize.tokens` tokens (forward) or
   `BatchSize.gradient_tokens` (with a graph), contexts as well as candidates; logits are made for a bounded
   number of positions. So the peak does not grow with candidates, contexts or vocabulary. What does grow is
   small: a table of log-probabilities of parents x length x vocabulary.
2. The plan is measured, not guessed, so that it holds for any architecture: a step on as few contexts as fill
   a batch is run at two small batch sizes, the allocator's peak is read, and the line through both gives
   bytes per token.
3. The batch size is the greatest power of two whose peak stays within a fraction of the free memory, and at
   most `ceiling`: two runs on one machine get the same batch size, and with it the same bits. A checkpoint
   keeps it. Where even a generous count from the sizes alone (`is_roomy`) fits, the ceiling is taken and
   nothing is measured.
4. An out-of-memory error halves the batch size; the operation that met it is done again as a whole.
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
#: Logits (numbers) that may be made at a time, for each token of a batch: 170 positions of a 49k vocabulary
#: at 8192 tokens.
LOGITS_PER_TOKEN = 1024
#: The most tokens that a batch gets, by kind of device (powers of two).
CEILING = {"cpu": 8192, "mps": 16384, "cuda": 65536}


@dataclass
class BatchSize:
    """Tokens per batch, halved on out-of-memory.

    tokens: run at a time without gradients. gradient_tokens: with a graph. The scorer and its parts share
    one.
    """

    tokens: int = 8192
    gradient_tokens: int = 2048

    def halve(self) -> None:
        """UserError when there is nothing left to halve."""
        if self.tokens <= SMALLEST:
            raise UserError(
                f"out of memory with batches of {self.tokens} tokens: a smaller model, dtype or context is needed"
            )
        self.tokens, self.gradient_tokens = self.tokens // 2, max(SMALLEST, self.gradient_tokens // 2)


def halve_on_out_of_memory(run: Callable) -> Callable:
    """A method of something with a `chunk` and a `runner`: when memory runs out, the batch size is halved and the method run again."""

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
    """Bytes of a stage: at_rest + per_token * tokens."""

    at_rest: float
    per_token: float

    @classmethod
    def through(cls, few: tuple[int, int], many: tuple[int, int]) -> MemoryLine:
        """The line through two (tokens, bytes)."""
        slope = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return cls(few[1] - slope * few[0], slope)

    def at(self, tokens: int) -> float:
        """Bytes at so many tokens."""
        return self.at_rest + self.per_token * tokens

    def most_tokens(self, room: float, ceiling: int) -> int:
        """The greatest power of two up to `ceiling` (a power of two) that fits into `room` bytes; the smallest if none does."""
        tokens = ceiling
        while tokens > SMALLEST and self.at(tokens) > room:
            tokens //= 2
        return tokens


@dataclass(frozen=True)
class BatchSizePlan:
    """Batch sizes that fit into the free memory.

    forward, gradient: bytes of the two stages next to weights and prefix caches. room: bytes that may be
    used. least: tokens that the parents take, which are one batch whatever the batch size.
    """

    forward: MemoryLine
    gradient: MemoryLine
    room: float
    ceiling: int
    least: int = 0

    @property
    def chunk(self) -> BatchSize:
        """The batch size of this plan."""
        tokens = self.forward.most_tokens(self.room, self.ceiling)
        return BatchSize(tokens, self.gradient.most_tokens(self.room, max(SMALLEST, self.ceiling // 4)))

    @property
    def peak(self) -> float:
        """Bytes that a step is expected to hold at most, next to weights and prefix caches."""
        return max(
            self.forward.at(max(self.chunk.tokens, self.least)), self.gradient.at(self.chunk.gradient_tokens)
        )


def fits_in_memory(
    runner: Runner, contexts: Contexts, length: int, chunk: BatchSize, share: float = 0.5
) -> bool:
    """True if a batch of this size fits without question.

    All rows counted as whole sequences whose keys and values are copied, next to twice the arithmetic of
    `models/memory_estimate.py`, are within `share` of the free memory.
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
    """A plan from two stages; None where memory cannot be read.

    forward(tokens), gradient(tokens): make ready a batch of at most so many tokens: how many it really has,
    and what runs it. unit: two and six of it are tried; where they do not fit into memory, of half as much,
    down to `least_unit`. least: tokens that all parents take. at_rest: bytes of what the stages were tried
    without (the other parents' tables, children's residuals). share: of the free memory, how much may be
    used.
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
    """(tokens, bytes at the peak) of a stage at two and six units."""
    try:
        return [(tokens, _peak(run, device)) for tokens, run in (stage(2 * unit), stage(6 * unit))]
    except RuntimeError as error:
        if unit <= least_unit or not is_out_of_memory(error):
            raise
    gc.collect()
    give_back(device)
    return _tried(stage, max(least_unit, unit // 2), least_unit, device)


def _peak(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of a second run (the first makes what is kept: rotary tables, masks, workspaces)."""
    run()
    gc.collect()
    with peak_memory(device) as peak:
        run()
    return peak.bytes
