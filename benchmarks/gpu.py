"""The workbench on a GPU, part by part in order of their value; what is done so far is printed and written after every cell, and a failure
costs its cell only. Parts do not depend on each other, and each takes at most 8 minutes.

1. `llama8b`: a random model of Llama-3.1-8B's shape: loading, steps, memory, operations counted and planned.
2. `cost`: our step against plain EPO and cached GCG, in turn, in bfloat16; the baselines take the gradients
   of all parents in one batch.
3. `ways`: blocks run as they are, and replayed as CUDA graphs.  4. `collection`: activation collection next
   to a bare Hugging Face pass.
5. `memory`: `set_batch_size` against the allocator's peak with chunks that are filled, and a real out-of-memory
   error.
6. `agree`: scores, gradients' tokens and a short search on the device against the CPU, optimizations on
   against off, float32 and bfloat16.
7. `growth`: seconds against candidates and contexts.  8. `device_map`: blocks on two devices.

    make bench-gpu                                                        # all parts, SmolLM2-135M
    python -m benchmarks.gpu --small --limit 90 --cell-limit 40           # every part once, tiny: does it
    run? python -m benchmarks.gpu --device cpu --dtype float32 --small --parts agree memory       # a dry run

Without a CUDA device it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from benchmarks import gpu_blocks, gpu_checks, gpu_speed
from benchmarks.gpu_lab import Cells, Lab, text_of
from benchmarks.search_cost import Size

PARTS: dict[str, Callable[[Lab], Cells]] = {
    "llama8b": gpu_speed.llama8b,
    "cost": gpu_speed.cost,
    "ways": gpu_blocks.ways,
    "collection": gpu_speed.collection,
    "memory": gpu_checks.memory,
    "agree": gpu_checks.agree,
    "growth": gpu_speed.growth,
    "device_map": gpu_checks.device_map,
}


class TooLong(Exception):
    """A cell ran past its limit."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TooLong in what runs inside once the seconds are over (when the running call into C returns)."""

    def stop(*_: object) -> None:
        raise TooLong(f"not done after {seconds:.0f} s")

    began, before = time.perf_counter(), signal.signal(signal.SIGALRM, stop)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, outer - (time.perf_counter() - began)) if outer else 0)


class Journal:
    """The result, on disk after every cell. `limit`: seconds of a part after which no cell is begun; `cell_limit`: seconds a cell may take."""

    def __init__(self, out: Path, head: dict[str, object], limit: float, cell_limit: float) -> None:
        self.out, self.limit, self.cell_limit = out, limit, cell_limit
        self.began = self.part_began = time.perf_counter()
        self.result = head | {"parts": {}}

    @property
    def left(self) -> float:
        """Seconds until no cell of this part is begun any more."""
        return self.limit - (time.perf_counter() - self.part_began)

    @property
    def seconds(self) -> float:
        """Since the first part."""
        return time.perf_counter() - self.began

    def part(self, name: str, cells: Callable[[], Cells]) -> None:
        """Runs the cells of one part, each on its own; a part that cannot go on ends where it is."""
        rows, self.part_began = self.result["parts"].setdefault(name, []), time.perf_counter()
        print(f"\n== {name} (at {self.seconds:.0f} s)", flush=True)
        try:
            with at_most(max(1.0, self.left + self.cell_limit)):
                for label, run in cells():
                    self._cell(rows, label, run)
        except (
            Exception
        ) as error:  # what there is must be kept, whatever fails on a machine that is lent for minutes
            self._note(rows, {"cell": "the part itself", **failure(error)})
        clear()

    def _cell(self, rows: list, label: str, run: Callable[[], dict[str, object]]) -> None:
        if self.left <= 0:
            return self._note(rows, {"cell": label, "skipped": "the part's time limit is reached"})
        began = time.perf_counter()
        try:
            with at_most(min(self.cell_limit, self.left + 30)):
                found = run()
        except Exception as error:
            found = failure(error)
        self._note(rows, {"cell": label, "took": round(time.perf_counter() - began, 2), **found})
        clear()

    def _note(self, rows: list, row: dict[str, object]) -> None:
        rows.append(row)
        print(text_of(row), flush=True)
        self.write()

    def write(self) -> None:
        """Saves what there is under a temporary name, and renames it."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.out.with_suffix(".part")
        scratch.write_text(json.dumps(self.result | {"seconds": self.seconds}, indent=1, default=str) + "\n")
        scratch.replace(self.out)


def failure(error: BaseException) -> dict[str, object]:
    """What is recorded of a failed cell: the error and the end of its traceback."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"error": f"{type(error).__name__}: {str(error)[:500]}", "traceback": lines[-12:]}


def clear() -> None:
    """Drops what a cell left on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def head(lab: Lab) -> dict[str, object]:
    """What machine and settings the figures belong to."""
    cuda, matmul = lab.device.startswith("cuda"), torch.backends.cuda.matmul
    return {
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "memory": torch.cuda.get_device_properties(0).total_memory if cuda else None,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "float32 products": torch.get_float32_matmul_precision(),
        "TF32": bool(matmul.allow_tf32),
        "bfloat16 reduced sums": bool(matmul.allow_bf16_reduced_precision_reduction),
        "size": asdict(lab.size),
        "model": lab.model,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--model",
        default="smollm",
        help="smollm, tiny (random), or a directory, whose tokenizer the random models take",
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--slots", nargs="+", default=["after_question", "system"])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes everywhere: does every part run?")
    parser.add_argument(
        "--limit", type=float, default=330, help="seconds of a part after which no cell is begun"
    )
    parser.add_argument(
        "--cell-limit", type=float, default=150, help="seconds after which a cell is given up"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=None,
        help="where the 8B model's 16 GB are written (a temporary directory)",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "latest" / "gpu.json")
    return parser.parse_args()


def lab_of(arguments: argparse.Namespace) -> Lab:
    """Settings of a run; --small overrides the sizes."""
    small, candidates = arguments.small, 32 if arguments.small else arguments.candidates
    return Lab(
        device=arguments.device,
        model="tiny" if small and arguments.model == "smollm" else arguments.model,
        dtype=arguments.dtype,
        slots=tuple(arguments.slots),
        contexts=(1, 2) if small else tuple(arguments.contexts),
        size=Size(parents=4 if small else 8, candidates=candidates, few=max(4, candidates // 8)),
        repeats=1 if small else arguments.repeats,
        small=small,
        scratch=arguments.scratch,
    )


def main() -> None:
    arguments = parse()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: make bench-gpu needs one (nothing was measured)", file=sys.stderr)
        raise SystemExit(2)
    lab = lab_of(arguments)
    journal = Journal(arguments.out, head(lab), arguments.limit, arguments.cell_limit)
    print(json.dumps(journal.result), flush=True)
    for name in arguments.parts:
        journal.part(name, lambda name=name: PARTS[name](lab))
    print(f"\nwritten to {arguments.out} after {journal.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
