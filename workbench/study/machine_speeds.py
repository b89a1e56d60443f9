"""Machines for which costs are estimated: two GPUs by their data sheets, and one core of this machine.

GPU peaks are the makers' dense figures, and the achieved fraction is an assumption. Launching the kernels of
a block took 3 ms on an H200 (docs/performance.md), independent of the number of tokens. The CPU's peak is
that of matrix products on one core of this machine, measured when a plan is made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache

import torch

from workbench.models.loading import choose_dtype


@dataclass(frozen=True)
class MachineSpeed:
    """Speed and memory of a machine for which a study's cost is estimated.

    Attributes:
        name: Name of the machine.
        peak: Peak FLOPs per second of dense matrix products at the data type.
        share: Fraction of the peak that is assumed to be achieved.
        memory: Memory in bytes.
        dtype: Data type of the weights.
        launch: Seconds to launch the kernels of one transformer block; 0 on a CPU.
        bandwidth: Bytes of weights read per second.
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
        """Achieved FLOPs per second: the peak times the fraction that is assumed to be achieved."""
        return self.peak * self.share

    @property
    def on_cpu(self) -> bool:
        """Whether the machine is a CPU.

        On a CPU, weights and process share one memory, and the time of kernel launches is negligible.
        """
        return not self.launch


#: Known machines: H100 and RTX 4090 by their makers' data sheets (dense, 16 bits), and one CPU core.
MACHINES = (
    MachineSpeed("80 GB GPU (H100)", 989e12, 0.35, 80e9, "bfloat16", 3e-3, 3.35e12),
    MachineSpeed("24 GB GPU (RTX 4090)", 165e12, 0.35, 24e9, "bfloat16", 3e-3, 1.0e12),
    MachineSpeed("CPU (one core)", 7e10, 0.85, 64e9, "float32", 0.0, 8e9),
)


def machines(dtype: str | None = None, on_cpu: str = "float32") -> tuple[MachineSpeed, ...]:
    """Return the machines for which a study's cost is estimated: two GPUs and one CPU core.

    The speed of the core is measured on this machine.

    Args:
        dtype: Data type of the weights on all machines; None for each machine's default.
        on_cpu: Data type on the CPU if `dtype` is None.
    """
    *gpus, cpu = MACHINES
    cpu = replace(cpu, dtype=dtype or on_cpu, peak=core_speed(dtype or on_cpu))
    return (*(replace(gpu, dtype=dtype or gpu.dtype) for gpu in gpus), cpu)


@cache
def core_speed(dtype: str = "float32") -> float:
    """Measure the FLOPs per second of matrix products on one core of this machine.

    The result is the best of five trials of 50 ms of processor time.

    Args:
        dtype: Data type of the matrices.
    """
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
