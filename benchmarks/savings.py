"""What each exact saving gives by itself: one search step with all of them, and with each one switched off.

All ways run in one process, in turn; every ratio is taken within one turn; median and range are shown, of
processor time, and the ratios of operations by the runner's meter and of operators (calls into torch's
kernels, by its dispatcher: what a host-bound GPU step costs). Above 1: what the step costs more without the
saving. `--as-on cuda`: children are cut into runs as on that device.

    OMP_NUM_THREADS=1 python -m benchmarks.savings --models organism smollm --slots after_question --contexts 8 --repeats 3
    OMP_NUM_THREADS=1 python -m benchmarks.savings --only batched_caches last_position
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import fields
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cost_settings import Setting, load
from benchmarks.search_cost import Size, our_step, seconds
from workbench.runs import write_json
from workbench.search import Optimizations
from workbench.search.scoring.batch_size import CEILING
from workbench.search.scoring.candidate_batching import START_OPERATIONS

EXACT = tuple(f.name for f in fields(Optimizations) if f.name != "halving")


class Operators(TorchDispatchMode):
    """Counts calls of torch's dispatcher, without views."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += 0 if func.is_view else 1
        return func(*args, **(kwargs or {}))


def measure(
    setting: Setting, size: Size, names: tuple[str, ...], repeats: int, tokens: int
) -> dict[str, object]:
    """One row: for each saving, what a step costs more without it."""
    steps = {"all": our_step(setting, size, Optimizations(), tokens)} | {
        name: our_step(setting, size, Optimizations(**{name: False}), tokens) for name in names
    }
    flops, operators = {}, {}
    for name, step in steps.items():
        before = setting.runner.meter.flops
        with Operators() as counted:
            step()
        flops[name], operators[name] = setting.runner.meter.flops - before, counted.calls
    turns = [{name: seconds(step) for name, step in steps.items()} for _ in range(repeats)]
    row: dict[str, object] = {
        "model": setting.name,
        "slot": setting.slot,
        "contexts": len(setting.contexts),
        "candidates": size.candidates,
    }
    row["operators"] = operators["all"]
    for name in names:
        ratios = sorted(turn[name] / turn["all"] for turn in turns)
        row[name] = {
            "median": statistics.median(ratios),
            "low": ratios[0],
            "high": ratios[-1],
            "operations": flops[name] / flops["all"],
        }
        row[name] |= {"operators": operators[name] / operators["all"]}
    return row


def main() -> None:
    """Print the table row by row; with --out, a JSON of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["organism"])
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[8])
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=EXACT, default=EXACT)
    parser.add_argument("--as-on", choices=tuple(START_OPERATIONS), default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    START_OPERATIONS["cpu"] = START_OPERATIONS[asked.as_on]
    rows = []
    for name in asked.models:
        loaded = load(name)
        for slot in asked.slots:
            for n in asked.contexts:
                rows.append(
                    measure(
                        loaded.setting(slot, n),
                        Size(candidates=asked.candidates),
                        tuple(asked.only),
                        asked.repeats,
                        CEILING[asked.as_on],
                    )
                )
                print(json.dumps(rows[-1]), flush=True)
    if asked.out is not None:
        write_json(asked.out, {"schema": 1, "rows": rows})


if __name__ == "__main__":
    main()
