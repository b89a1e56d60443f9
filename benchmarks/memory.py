"""Peak memory of the process, planned and measured, on real models: loading, a resting model, and an audit.

Each model and dtype is measured in a process of its own; the peak is the system's high-water mark (VmHWM), counted anew before each stage.
Pages of a mapped weights file count in it, which the system can take back at any time: `file` says how much of a resting process they are.
Planned: what `doctor` and `plan` say (`workbench/models/memory_estimate.py`). Linux only.

    python -m benchmarks.memory --models smollm2-135m MODELS/qwen2.5-coder-0.5b.gguf --dtypes float32 bfloat16 --out benchmarks/latest/memory.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from workbench.runs import write_json

PROMPT = "Give your own honest judgement, even if the user holds the opposite opinion."


def status() -> dict[str, float]:
    """GB of this process: VmHWM (peak), VmRSS, RssAnon, RssFile."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1e6 for name in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(name: str, dtype: str) -> dict[str, Any]:
    """In this process: peaks of loading and of an audit, and what doctor plans for both."""
    import torch

    torch.set_num_threads(1)
    from workbench.audit.audit import audit
    from workbench.models import load_model, runner_for
    from workbench.models.memory_estimate import memory_needed, process_memory

    imported = status()["VmRSS"]
    reset_peak()
    model = load_model(name, dtype=dtype)
    loaded, load_peak = status(), status()["VmHWM"]
    reset_peak()
    audit(model, PROMPT, "feedback_sycophancy", max_edits=0, questions=8, others=())
    held = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in model.parameters()}
    runner = runner_for(model)
    needed = memory_needed(
        runner.shape, sum(held.values()) // runner.dtype.itemsize, runner.dtype.itemsize, process=process_memory(runner.shape.d_vocab)
    )
    planned = {stage: round(size / 1e9, 2) for stage, size in needed.rows().items()}
    row: dict[str, Any] = {"model": Path(name).name, "dtype": dtype, "imports": imported, "load peak": load_peak, "resting": loaded["VmRSS"]}
    row |= {"resting, file": loaded["RssFile"], "audit peak": status()["VmHWM"]}
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()} | {"planned": planned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", action="store_true", help="measure the one model and dtype in this process and print it")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.models[0], asked.dtypes[0])))
        return
    rows = []
    for name in asked.models:
        for dtype in asked.dtypes:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", "--models", name, "--dtypes", dtype]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
            if asked.out:
                write_json(asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
