"""Memory of a device: what is free, the peak of what was allocated, and whether an error means that there was not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated; None where that cannot be found out."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    known = Path("/proc/meminfo")
    if not known.exists():
        return None
    fields = dict(line.split(":", 1) for line in known.read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])


@dataclass
class PeakMemory:
    """Peak memory of a block of code.

    bytes: the most that tensors held at one time beyond what they held at the start; None where it is not counted (MPS).
    """

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Counts the allocator's peak over the block (on the CPU by the profiler, which costs time: for a few batches)."""
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
    elif device.type == "cpu":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            yield peak
        kineto: Any = profile.profiler
        events = [e for e in kineto.kineto_results.events() if e.name() == "[memory]"]
        held = most = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            most = max(most, held)
        peak.bytes = most
    else:
        yield peak


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors that devices give when an allocation fails."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def give_back(device: torch.device) -> None:
    """Returns the allocator's unused blocks to the device, so that smaller pieces fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
