"""Processor seconds of `load_model` over those of a bare Hugging Face load (model and tokenizer) of the same directory.

Both load in one process, in turn, after one load of each that is not counted; every ratio is taken within one turn. Files
are in the page cache. A bare load in the files' own dtype only maps them: its first forward pass reads the weights. Ours
reads them to refuse values that are not finite, so two more ratios are given: to a bare load and one reading of the
weights (`read`), and of both loads with the first forward pass of 16 tokens (`pass`).

    OMP_NUM_THREADS=1 python -m benchmarks.loading --models smollm MODELS/gemma-3-270m --repeats 5
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.host_time import processor_seconds
from workbench.models import load_model, runner_for
from workbench.models.gguf_files import smollm_directory
from workbench.models.model_sources import find_source
from workbench.runs import write_json


def directory_of(name: str) -> Path:
    """Return the Hugging Face directory of a model: `smollm`, `organism`, a GGUF file or a directory."""
    return smollm_directory() if name == "smollm" else Path(find_source(name).directory)


def measure(directory: Path, dtype: str, repeats: int) -> dict[str, Any]:
    """Return the seconds of both loads in each turn, and the ratio's median and range."""

    def bare() -> None:
        AutoTokenizer.from_pretrained(directory)
        AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()

    def read() -> None:
        AutoTokenizer.from_pretrained(directory)
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
        for weight in model.parameters():
            weight.sum()

    def ours() -> None:
        load_model(directory, dtype=dtype)

    ids = torch.arange(4, 20)[None]

    @torch.no_grad()
    def bare_pass() -> None:
        AutoTokenizer.from_pretrained(directory)
        AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()(ids)

    @torch.no_grad()
    def ours_pass() -> None:
        runner = runner_for(load_model(directory, dtype=dtype))
        runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0])

    loads: dict[str, Callable[[], None]] = {"bare": bare, "read": read, "ours": ours}
    loads |= {"bare_pass": bare_pass, "ours_pass": ours_pass}
    turns = []
    for turn in range(repeats + 1):
        seconds = {}
        for name, load in loads.items():
            gc.collect()  # what the last load left is not this one's cost
            seconds[name] = processor_seconds(load)
        turns += [seconds] if turn else []
    row: dict[str, Any] = {
        "model": directory.name,
        "dtype": dtype,
        "seconds": {name: statistics.median(seconds[name] for seconds in turns) for name in loads},
    }
    for mine, other in (("ours", "bare"), ("ours", "read"), ("ours_pass", "bare_pass")):
        ratios = sorted(seconds[mine] / seconds[other] for seconds in turns)
        row[f"{mine}/{other}"] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    return row


def main() -> None:
    """Print a line per model and dtype, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["organism", "smollm"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "loading.json")
    asked = parser.parse_args()
    rows = []
    for name in asked.models:
        for dtype in asked.dtypes:
            rows.append(measure(directory_of(name), dtype, asked.repeats))
            print(rows[-1], flush=True)
            write_json(asked.out, {"benchmark": "loading", "rows": rows})


if __name__ == "__main__":
    main()
