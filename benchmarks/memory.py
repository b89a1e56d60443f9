"""Peak memory and processor seconds of every stage of a small study, planned and measured, on real models; with --audit of an audit too.

Each model and dtype is measured in a process of its own. A stage's peak is the system's high-water mark
(VmHWM), counted anew before each stage and kept in the run's manifest; it holds what earlier stages left with
the allocator. Pages of a mapped weights file count in it, which the system can take back at any time.
Planned: `plan` for the stages (with the layer that the run chose), `doctor`'s arithmetic for the audit. Linux
only.

    python -m benchmarks.memory --models smollm2-135m MODELS/qwen2.5-coder-0.5b.gguf --dtypes float32 bfloat16 --out benchmarks/latest/memory.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workbench.runs import read_json, write_json

PROMPT = "Give your own honest judgement, even if the user holds the opposite opinion."
SETTINGS: dict[str, Any] = {
    "persona": "english_hallucination",
    "sae": "none",
    "conditions": ["manual", "resga"],
    "primary": ["resga"],
    "data": {"train_items": 32, "search_items": 12, "selection_items": 6, "test_items": 12},
    "random_directions": 0,
    "random_prompts": 1,
    "directions": {"rows": 16, "texts": 6, "contexts": 5, "methods": ["mean_difference"], "unshown": "go_on"},
    "search": {
        "method": "epo",
        "lexicon": "all",
        "options": {"length": 6, "population": 4, "children": 12},
        "budget": {"steps": 2},
        "contexts": 4,
        "neutral": 6,
    },
    "collateral": {"items": 6},
    "attribution": {"contexts": 2, "circuit": 0, "cards": 0},
}


def measure(name: str, dtype: str, batch_tokens: int, audited: bool) -> dict[str, Any]:
    """In this process."""
    import torch

    torch.set_num_threads(1)
    from workbench.study import Study, run
    from workbench.study.cost_estimate import plan

    search = SETTINGS["search"] | {"batch_tokens": batch_tokens}
    study = Study.of(SETTINGS | {"model": {"name": name, "dtype": dtype}, "search": search})
    times: dict[str, list[float]] = {}

    def report(stage: str, _: float) -> None:
        times.setdefault(stage, []).append(time.process_time())

    with tempfile.TemporaryDirectory() as directory:
        stages = run(study, Path(directory) / "run", report=report).manifest().stages
        layer = int(read_json(Path(directory) / "run" / "direction.json")["site"].split(".")[1])
    known = study.model_copy(update={"directions": study.directions.model_copy(update={"layers": (layer,)})})
    estimates, searching = plan(study), {stage.name: stage for stage in plan(known).stages}
    cpu, rows = estimates.machines[-1], []
    for stage in estimates.stages:
        stage = searching[stage.name] if stage.name.startswith("search ") else stage
        gb = [
            estimates.bytes(stage, dtype, on_cpu=True) / 1e9,
            (stages[stage.name].peak_memory_mb or 0) / 1e3,
        ]
        seconds = [stage.seconds(cpu), times[stage.name][-1] - times[stage.name][0]]
        flops = [stage.flops / 1e12, (stages[stage.name].flops or 0) / 1e12]
        rows.append(
            {"stage": stage.name, "GB": _rounded(gb), "seconds": _rounded(seconds), "TFLOP": _rounded(flops)}
        )
    found = {
        "model": Path(name).name,
        "dtype": dtype,
        "batch_tokens": batch_tokens,
        "layer": layer,
        "core": round(cpu.peak / 1e9),
        "stages": rows,
    }
    return found | ({"audit GB": _rounded(audit_peak(name, dtype))} if audited else {})


def audit_peak(name: str, dtype: str) -> list[float]:
    """Planned and measured peak of an audit of four questions, GB."""
    from workbench.audit.audit import audit
    from workbench.models import load_model, runner_for
    from workbench.models.memory_estimate import memory_needed, process_memory

    model = load_model(name, dtype=dtype)
    Path("/proc/self/clear_refs").write_text("5")
    audit(model, PROMPT, "feedback_sycophancy", max_edits=0, questions=4, others=())
    runner = runner_for(model)
    held = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes()
        for weight in model.parameters()
    }
    size = runner.dtype.itemsize
    needed = memory_needed(
        runner.shape, sum(held.values()) // size, size, None, process_memory(runner.shape.d_vocab)
    )
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [
        needed.rows()["score candidates after a cached prefix"] / 1e9,
        int(fields["VmHWM"].split()[0]) / 1e6,
    ]


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--one", action="store_true", help="measure the one model and dtype in this process and print it"
    )
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.models[0], asked.dtypes[0], asked.batch_tokens, asked.audit)))
        return
    rows = []
    for name in asked.models:
        for dtype in asked.dtypes:
            command = [
                sys.executable,
                "-m",
                "benchmarks.memory",
                "--one",
                "--models",
                name,
                "--dtypes",
                dtype,
            ]
            command += ["--batch-tokens", str(asked.batch_tokens), *(["--audit"] if asked.audit else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    if asked.out:
        write_json(asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
