"""The search step on a GPU: against the baselines, three ways to run the blocks, and the memory plan against the measured peak.

1. Ratios: `search_cost`'s contestants on the device, in bfloat16 (projections and scores in float32), in turn.
2. Blocks run eagerly, through torch.compile, and through torch.compile with CUDA graphs (`reduce-overhead`); each is compared
   with the eager scores before it is timed. The first steps, which compile, are not counted.
3. Memory: `Scorer.plan` at a share of the free memory, and the allocator's peak over a step that fills the chunk.

    make bench-gpu                                            # SmolLM2-135M
    python -m benchmarks.gpu --model DIRECTORY --contexts 8 32 --candidates 512

Without a CUDA device it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.cost_settings import Setting, load
from benchmarks.search_cost import Size, measure, our_step, table
from workbench.models import hooked
from workbench.models.device_memory import peak_memory
from workbench.search import Savings, Scorer

WAYS = {"eager": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}


@contextmanager
def blocks_run(mode: str | None) -> Iterator[None]:
    """While inside, plain blocks run through torch.compile in this mode (None: as they are)."""
    eager = hooked.run_block
    if mode is not None:
        hooked.run_block = torch.compile(eager, mode=mode, dynamic=mode == "default")
    try:
        yield
    finally:
        hooked.run_block = eager


def ways(setting: Setting, size: Size, repeats: int) -> list[dict[str, object]]:
    """Seconds of our step by the way blocks are run, and how far its scores are from the eager ones."""
    prompts = torch.randint(10, setting.runner.shape.d_vocab, (32, size.length), generator=torch.Generator().manual_seed(2)).to(setting.runner.device)
    scorer = Scorer(setting.runner, setting.objective, setting.contexts)
    exact, rows = scorer.score(prompts).objective, []
    for name, mode in WAYS.items():
        with blocks_run(mode):
            off = float((scorer.score(prompts).objective - exact).abs().max() / exact.std())
            step = our_step(setting, size, Savings(), batch_tokens=scorer.chunk.tokens)
            for _ in range(3):
                step()
            times = sorted(_timed(step) for _ in range(repeats))
        row = {"blocks": name, "seconds": statistics.median(times), "low": times[0], "high": times[-1]}
        rows.append(row | {"largest change, in standard deviations": off})
    return rows


def memory(setting: Setting, size: Size) -> dict[str, float]:
    """Planned and measured bytes of a step beside weights and prefix caches."""
    scorer = Scorer(setting.runner, setting.objective, setting.contexts)
    plan = scorer.plan(size.length, size.parents, size.candidates)
    step = our_step(setting, size, Savings(), batch_tokens=scorer.chunk.tokens)
    step()
    with peak_memory(setting.runner.device) as peak:
        step()
    return {"tokens": scorer.chunk.tokens, "planned": plan.peak, "measured": peak.bytes, "measured/planned": peak.bytes / plan.peak}


def _timed(step) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "gpu.json")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: make bench-gpu needs one (nothing was measured)", file=sys.stderr)
        raise SystemExit(2)
    loaded, size = load(arguments.model, "cuda", arguments.dtype), Size(candidates=arguments.candidates, few=arguments.candidates // 8)
    result = {"benchmark": "gpu", "device": torch.cuda.get_device_name(), "torch": torch.__version__, "size": vars(size), "cells": []}
    for slot in arguments.slots:
        for n_contexts in arguments.contexts:
            setting = loaded.setting(slot, n_contexts)
            cost, by_way = measure(setting, size, arguments.repeats), ways(setting, size, arguments.repeats)
            cell = {"cost": cost, "ways": by_way, "memory": memory(setting, size)}
            result["cells"].append(cell)
            print(table([cell["cost"]]), *cell["ways"], cell["memory"], sep="\n", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
