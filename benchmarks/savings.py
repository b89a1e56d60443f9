"""What each exact saving gives by itself: one search step with all of them, and with each one switched off.

All ways run in one process, in turn; every ratio is taken within one turn; median and range are shown, of processor time, and the ratio of
operations by the runner's meter. Above 1: what the step costs more without the saving.

    OMP_NUM_THREADS=1 python -m benchmarks.savings --models organism smollm --slots after_question --contexts 8 --repeats 3
    OMP_NUM_THREADS=1 python -m benchmarks.savings --only stacked_contexts last_position
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import fields
from pathlib import Path

import torch

from benchmarks.cost_settings import Setting, load
from benchmarks.search_cost import Size, our_step, seconds
from workbench.runs import write_json
from workbench.search import Savings

EXACT = tuple(f.name for f in fields(Savings) if f.name != "halving")


def measure(setting: Setting, size: Size, names: tuple[str, ...], repeats: int) -> dict[str, object]:
    """One row: for each saving, what a step costs more without it."""
    steps = {"all": our_step(setting, size, Savings())} | {name: our_step(setting, size, Savings(**{name: False})) for name in names}
    flops = {}
    for name, step in steps.items():
        before = setting.runner.meter.flops
        step()
        flops[name] = setting.runner.meter.flops - before
    turns = [{name: seconds(step) for name, step in steps.items()} for _ in range(repeats)]
    row: dict[str, object] = {"model": setting.name, "slot": setting.slot, "contexts": len(setting.contexts), "candidates": size.candidates}
    for name in names:
        ratios = sorted(turn[name] / turn["all"] for turn in turns)
        row[name] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1], "operations": flops[name] / flops["all"]}
    return row


def main() -> None:
    """Print the table row by row; with --out, a JSON of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["organism"])
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[8])
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=EXACT, default=EXACT)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in asked.models:
        loaded = load(name)
        for slot in asked.slots:
            for n in asked.contexts:
                rows.append(measure(loaded.setting(slot, n), Size(candidates=asked.candidates), tuple(asked.only), asked.repeats))
                print(json.dumps(rows[-1]), flush=True)
    if asked.out is not None:
        write_json(asked.out, {"schema": 1, "rows": rows})


if __name__ == "__main__":
    main()
