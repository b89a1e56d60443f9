"""Memory of a search over many candidates: resident memory after each tenth of them, `python -m benchmarks.search_memory --candidates 1000000`.

A random two-block model of width 32, one context, an objective on the first block's input to the second; the
search draws swaps at random. Every step proposes 5,000 candidates, of which about half are copies and not
scored again; only what is scored counts. Flat means: the last tenth needs no more than the third (the
archive, its history and the memory of tried prompts have grown by then what they grow).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.models import Site
from workbench.objectives import projection
from workbench.search import RandomSearch, SearchProgress, search

EACH_STEP = 5_000


def resident_megabytes() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(candidates: int) -> dict[str, object]:
    """Resident megabytes by candidates scored, at every tenth."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = random_model()
    contexts = make_contexts(model, toy_persona().split().search, n=1)
    goal = projection(
        SimpleNamespace(vector=torch.randn(32, generator=torch.Generator().manual_seed(0)), site=Site(0)),
        "raw",
    )
    steps = 2 * candidates // EACH_STEP
    rows: list[dict[str, float]] = []

    def note(progress: SearchProgress) -> None:
        if progress.step % max(1, steps // 10) == 0:
            scored = round(progress.candidates_per_second * progress.seconds)
            rows.append({"candidates": scored, "megabytes": round(resident_megabytes(), 1)})
            print(rows[-1], flush=True)

    began, method = time.process_time(), RandomSearch(length=4, population=5, children=EACH_STEP // 5)
    found = search(model, goal, contexts, method, Budget(steps=steps), seed=0, on_step=note)
    scored = int(found.history["candidates"].iloc[-1])
    return {"candidates": scored, "processor_seconds": round(time.process_time() - began, 1), "rows": rows}


def main() -> None:
    """Prints the rows, and writes them where asked."""
    parser = argparse.ArgumentParser(description="Memory of a search over many candidates")
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = measure(given.candidates)
    text = json.dumps(found, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
