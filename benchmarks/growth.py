"""How the cost of one search step grows: one factor is varied at a time, and log seconds are fitted on log factor.

What the arithmetic says: 1 in candidates, contexts and layers (gradients included: parents are fixed); below
1 in prompt length while the suffix and the prefix's attention weigh more; 0 in the vocabulary but for the
tables of the parents.

    OMP_NUM_THREADS=1 python -m benchmarks.growth        # a random Llama of 6 blocks, 256 wide; some minutes
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cost_settings import load
from benchmarks.search_cost import Size, our_step, seconds
from workbench.search import Optimizations

BASE = {"candidates": 64, "contexts": 4, "length": 8, "n_layers": 6, "d_vocab": 49152}
FACTORS = {
    "candidates": (32, 64, 128, 256),
    "contexts": (2, 4, 8, 16, 32, 64, 128),
    "length": (4, 8, 16, 32, 64),
    "n_layers": (4, 8, 16),
    "d_vocab": (49152, 98304, 196608),
}


def step_seconds(point: dict[str, int], slot: str, repeats: int) -> float:
    """Median seconds of a step at one point."""
    loaded = load("llama", d_vocab=point["d_vocab"], n_layers=point["n_layers"], d_model=256)
    size = replace(Size(parents=4), candidates=point["candidates"], length=point["length"])
    step = our_step(loaded.setting(slot, point["contexts"], tokens=64), size, Optimizations())
    step()
    return statistics.median(seconds(step) for _ in range(repeats))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slot", default="after_question")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "growth.json")
    arguments = parser.parse_args()
    rows = []
    for factor, values in FACTORS.items():
        times = [step_seconds(BASE | {factor: value}, arguments.slot, arguments.repeats) for value in values]
        exponent = float(np.polyfit(np.log(values), np.log(times), 1)[0])
        rows.append({"factor": factor, "values": values, "seconds": times, "exponent": exponent})
        print(
            f"{factor:<11} exponent {exponent:5.2f}   "
            + "   ".join(f"{v}: {t:.3f} s" for v, t in zip(values, times, strict=True)),
            flush=True,
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"benchmark": "growth", "base": BASE, "slot": arguments.slot, "rows": rows}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
