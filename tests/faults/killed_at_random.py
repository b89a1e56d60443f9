"""SIGKILLs at random moments: `python -m tests.faults.killed_at_random --kills 100` (half of them in a run, a quarter in a resume, a quarter
in a sweep of two studies).

1. The libraries and the model are loaded once; what is killed is a forked process, at a random fraction of
   the processor seconds that an undisturbed run takes (so that a busy machine does not move the moment).
2. After each kill every file is whole. The run, or the sweep, is then resumed and its files are compared with
   an undisturbed one's.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from tests.faults.injected_faults import STUDY, content, whole_files
from tests.faults.stopped_by_signals import used_by
from workbench.sweep import Sweep, study_worker, sweep

KINDS = ("run", "run", "resume", "sweep")


def forked(work: Callable[[], Any]) -> int:
    """The process id of a child that does the work and nothing else; its exit code is 0 when it ended well."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        work()
        code = 0
    finally:
        os._exit(code)


def killed(work: Callable[[], Any], processor_seconds: float) -> bool:
    """Kills the work after so many processor seconds of its own; False where it ended before."""
    child = forked(work)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if used_by(child) >= processor_seconds:
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        time.sleep(0.005)
    return False


def ended(work: Callable[[], Any]) -> tuple[bool, float]:
    """(whether undisturbed work ended well, its processor seconds)."""
    before = os.times()
    code = os.waitpid(forked(work), 0)[1]
    after = os.times()
    return (
        code == 0,
        after.children_user + after.children_system - before.children_user - before.children_system,
    )


def contents(place: Path) -> dict[str, dict[str, str]]:
    """The files of a run, or of every run of a sweep."""
    runs = sorted(place.glob("runs/*")) or [place]
    return {run.name if run != place else "": content(run) for run in runs}


def check(kills: int, seed: int = 0) -> tuple[dict[str, int], list[str]]:
    """(kills by kind, what went wrong)."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng, model = random.Random(seed), wb.load_model("organism")
    study_worker.load_model = lambda *settings: model  # type: ignore[assignment]
    both = Sweep(
        base=STUDY.model_dump(mode="json", exclude={"schema_", "name", "seed"}), grid={"seed": (0, 1)}
    )
    gc.freeze()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"

        def resumed() -> Any:
            return wb.run(STUDY, out, resume=(out / "manifest.json").exists(), model=model)

        works: dict[str, Callable[[], Any]] = {
            "run": resumed,
            "resume": resumed,
            "sweep": lambda: sweep(both, out),
        }
        wanted, seconds = {}, {}
        for kind in ("run", "sweep"):
            well, seconds[kind] = ended(works[kind])
            assert well, f"an undisturbed {kind} fails"
            wanted[kind] = contents(out)
            shutil.rmtree(out)
        wanted["resume"], seconds["resume"] = wanted["run"], seconds["run"]
        counts, wrong = dict.fromkeys(works, 0), []
        for kind in (KINDS[n % len(KINDS)] for n in range(kills)):
            for _ in range(2 if kind == "resume" else 1):
                moment = rng.uniform(0.02, 1.0) * seconds[kind]
                counts[kind] += killed(works[kind], moment)
                runs = [run for run in (sorted(out.glob("runs/*")) or [out]) if run.exists()]
                wrong += [
                    f"{kind} killed after {moment:.2f} s: {run.name}/{name} is damaged"
                    for run in runs
                    for name in whole_files(run)
                ]
            well, _ = ended(works[kind])
            wrong += [] if well else [f"{kind} killed after {moment:.2f} s: cannot go on"]
            wrong += (
                [] if contents(out) == wanted[kind] else [f"{kind} killed after {moment:.2f} s: other files"]
            )
            shutil.rmtree(out)
            print(
                f"{kind} killed after {moment:.2f} processor seconds; {sum(counts.values())} kills, {len(wrong)} things wrong",
                *wrong[-1:],
                flush=True,
            )
        return counts, wrong


def main() -> int:
    """Prints the figures; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description="SIGKILLs at random moments")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, wrong = check(given.kills, given.seed)
    print(*wrong, sep="\n")
    print(f"kills: {counts}; {len(wrong)} things went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
