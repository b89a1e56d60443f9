"""Measure a device's free memory and peak allocation, and recognise out-of-memory and lost-device errors."""

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
    """Return the bytes that can still be allocated on a device; None if that is unknown."""
    if device.type == "cuda":
        held, (free, total) = torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)
        allowed = int(
            total * torch.cuda.get_per_process_memory_fraction(device)
        )  # below 1 for a worker that shares the GPU with others
        return min(free + torch.cuda.memory_reserved(device) - held, allowed - held)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    known = Path("/proc/meminfo")
    if not known.exists():
        return None
    fields = dict(line.split(":", 1) for line in known.read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])


def machine_memory() -> int | None:
    """Bytes of memory that the machine has; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


@dataclass
class PeakMemory:
    """Peak memory of a block of code, filled in when `peak_memory` ends.

    Attributes:
        bytes: The largest number of bytes that tensors held at one time, minus those they held at the start;
            None on devices where this cannot be measured (MPS).
    """

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the allocator's peak while the `with` block runs.

    On a CPU this uses torch's profiler, which is slow: measure a few batches only.
    """
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
    """Whether an error means that an allocation failed on its device."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def is_device_lost(error: BaseException) -> bool:
    """Whether an error means that this process cannot use its GPU any more, so that later calls fail too."""
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
    """A GPU is unusable for this process; a new process can resume from what was computed before."""


@contextmanager
def telling_lost_devices() -> Iterator[None]:
    """Turn errors of a lost GPU in the `with` block into one `DeviceLostError` that says how to resume."""
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
    """Return the allocator's unused memory blocks to the device, so that it can allocate other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
