"""Memory of a device: what is free, the peak of what was allocated, and whether an error means that there was not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated; None where that cannot be found out."""
    if device.type == "cuda":
        held, (free, total) = torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)
        allowed = int(
            total * torch.cuda.get_per_process_memory_fraction(device)
        )  # of a worker that shares the GPU with others
        return min(free + torch.cuda.memory_reserved(device) - held, allowed - held)
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

    bytes: the most that tensors held at one time beyond what they held at the start; None where it is not
    counted (MPS).
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
        os.environ.setdefault(
            "KINETO_LOG_LEVEL", "99"
        )  # otherwise the profiler prints when it starts and stops
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
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


def is_device_lost(error: BaseException) -> bool:
    """True for errors after which a GPU does nothing more for this process: what is tried next fails too."""
    text = str(error).lower()
    lost = (
        "cuda error",
        "device-side assert",
        "unspecified launch failure",
        "gpu is lost",
        "fallen off the bus",
    )
    return (
        isinstance(error, RuntimeError)
        and not is_out_of_memory(error)
        and any(words in text for words in lost)
    )


class DeviceLostError(UserError):
    """A GPU that does nothing more for this process; what was computed before can be resumed by another."""


@contextmanager
def telling_lost_devices() -> Iterator[None]:
    """While the block runs, a lost GPU is one line that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        if not is_device_lost(error):
            raise
        first = str(error).splitlines()[0][:120]
        raise DeviceLostError(
            f"the GPU was lost ({first}); resume the run: finished stages and the search's last checkpoint are kept"
        ) from error


def give_back(device: torch.device) -> None:
    """Returns the allocator's unused blocks to the device, so that smaller pieces fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
