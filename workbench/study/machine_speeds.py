"""Machines that costs are estimated for: two GPUs by their makers' data sheets, and one core of this machine, measured.

GPU peaks are the makers' dense figures and their fraction an assumption; launching a block's kernels took 3
ms on an H200 (docs/performance.md), however few tokens the run had. The CPU's peak is that of matrix products
on one core of this machine, measured when a plan is made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache

import torch

from workbench.models.loading import choose_dtype


@dataclass(frozen=True)
class MachineSpeed:
    """A machine that costs are estimated for.

    peak: dense FLOPs a second at the dtype used there; share: of it that is assumed to be had; memory: bytes;
    launch: seconds that starting the kernels of one block takes; bandwidth: bytes of weights a second.
    """

    name: str
    peak: float
    share: float
    memory: float
    dtype: str
    launch: float = 0.0
    bandwidth: float = 1e12

    @property
    def speed(self) -> float:
        """FLOPs a second."""
        return self.peak * self.share

    @property
    def on_cpu(self) -> bool:
        """Whether weights and program share one memory, and kernels start at no cost worth counting."""
        return not self.launch


#: H100 and RTX 4090 after their makers' data sheets (dense, 16 bits); the CPU: one core, measured.
MACHINES = (
    MachineSpeed("80 GB GPU (H100)", 989e12, 0.35, 80e9, "bfloat16", 3e-3, 3.35e12),
    MachineSpeed("24 GB GPU (RTX 4090)", 165e12, 0.35, 24e9, "bfloat16", 3e-3, 1.0e12),
    MachineSpeed("CPU (one core)", 7e10, 0.85, 64e9, "float32", 0.0, 8e9),
)


def machines(dtype: str | None = None, on_cpu: str = "float32") -> tuple[MachineSpeed, ...]:
    """The machines of a plan.

    MACHINES with this machine's own core at the dtype used there (`on_cpu`), and one dtype for all where it
    is given.
    """
    *gpus, cpu = MACHINES
    cpu = replace(cpu, dtype=dtype or on_cpu, peak=core_speed(dtype or on_cpu))
    return (*(replace(gpu, dtype=dtype or gpu.dtype) for gpu in gpus), cpu)


@cache
def core_speed(dtype: str = "float32") -> float:
    """FLOPs a second of matrix products on one core of this machine: the best of five tries of 50 ms of processor time."""
    threads, kind = torch.get_num_threads(), choose_dtype(dtype)
    torch.set_num_threads(1)
    try:
        left, right = torch.randn(256, 1024, dtype=kind), torch.randn(1024, 2048, dtype=kind)
        torch.mm(left, right)
        return max(_rate(left, right) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def _rate(left: torch.Tensor, right: torch.Tensor) -> float:
    done, start = 0, time.process_time()
    while time.process_time() - start < 0.05:
        torch.mm(left, right)
        done += 1
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] * done / (time.process_time() - start)
