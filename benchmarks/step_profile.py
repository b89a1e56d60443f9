"""Where the processor time of a search step goes: matrix products, attention, other kernels, Python.

1. A step of EPO, as in `search_cost`, runs once unmeasured and once under torch's profiler.
2. Fractions of the profiled step's time, which the profiler takes from the clock (other programs stretch all of
   it alike): self time of each kernel by kind. *Python* is the rest: interpreter, dispatcher, the profiler itself.
3. `product rate`: operations of the step (the runner's meter) a second of its products and attention, over the
   rate of one large matrix product of the MLP's shapes; their seconds are that fraction of the unprofiled step's
   processor seconds. Below 1: the products are too small to run at peak.
4. `of bound`: what the step would take if it were only products at peak, over what it takes unprofiled.

    OMP_NUM_THREADS=1 python -m benchmarks.step_profile --models llama smollm --contexts 1 8
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.cost_settings import Setting, load
from benchmarks.host_time import processor_seconds
from benchmarks.search_cost import Size, matmul_peak, our_step
from workbench.runs import write_json
from workbench.search import Optimizations

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "aten::matmul")
KINDS = ("products", "attention", "other kernels", "Python")


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel by its name in torch's profiler."""
    if "attention" in kernel:
        return "attention"
    return "products" if kernel in PRODUCTS or "mkl" in kernel.lower() else "other kernels"


def measure(setting: Setting, size: Size) -> dict[str, Any]:
    """Return one row: fractions of the step, the products' rate, and the fraction of the bound."""
    step = our_step(setting, size, Optimizations())
    step()
    peak, before = matmul_peak(setting), setting.runner.meter.flops
    seconds = processor_seconds(step)
    operations = setting.runner.meter.flops - before
    began = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
        whole = time.perf_counter() - began
    spent, kernels = Counter[str](), Counter[str]()
    for kernel in profile.key_averages():
        spent[kind_of(kernel.key)] += kernel.self_cpu_time_total / 1e6
        kernels[kernel.key] += kernel.self_cpu_time_total / 1e6
    spent["Python"] = max(0.0, whole - spent.total())
    return {
        "model": setting.name,
        "slot": setting.slot,
        "contexts": len(setting.contexts),
        "seconds": seconds,
        "fractions": {kind: spent[kind] / whole for kind in KINDS},
        "product rate": operations / peak / (seconds * (spent["products"] + spent["attention"]) / whole),
        "of bound": operations / peak / seconds,
        "kernels": {name: value / whole for name, value in kernels.most_common(8)},
    }


def main() -> None:
    """Print a line per cell and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["llama", "smollm"])
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "step_profile.json")
    asked = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    rows = []
    for name in asked.models:
        loaded = load(name)
        for slot in asked.slots:
            for n in asked.contexts:
                rows.append(measure(loaded.setting(slot, n), Size(candidates=asked.candidates)))
                row = rows[-1]
                fractions = "  ".join(f"{kind} {100 * row['fractions'][kind]:.0f} %" for kind in KINDS)
                end = f"product rate {row['product rate']:.2f}  of bound {row['of bound']:.2f}"
                print(f"{row['model']} {slot} {n}: {row['seconds']:.2f} s  {fractions}  {end}", flush=True)
                write_json(asked.out, {"benchmark": "step_profile", "rows": rows})


if __name__ == "__main__":
    main()
