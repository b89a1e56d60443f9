"""Faults at every write, fsync and rename of a tiny run: `python -m tests.faults.injected_faults` (`make faults`).

1. A run without faults counts its operations: opening a new file, writing, fsync, rename, and the lines of
   the log.
2. For each of them and each kind of fault (ENOSPC, EIO, kill) a new run meets the fault there. ENOSPC and EIO
   must end in one UserError; the kill ends a forked process at once. Every file is then whole, the old one or
   the new one.
3. The run is resumed, and every file must equal the undisturbed run's, but for times.
"""

from __future__ import annotations

import argparse
import errno
import gc
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import workbench as wb
from workbench.budget import Budget
from workbench.errors import UserError
from workbench.runs import atomic_writing, run_directory
from workbench.study import Study
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    OffTargetSettings,
    SearchSettings,
)

KINDS = ("ENOSPC", "EIO", "kill")
#: Every stage of a study without an SAE, in one processor second.
STUDY = Study(
    data=DataSettings(train_items=8, search_items=4, selection_items=4, test_items=8),
    directions=DirectionSettings(layers=(1,), methods=("mean_difference",), rows=8, texts=6, contexts=2),
    conditions=("constant_answer", "resga"),
    sae="none",
    random_directions=0,
    collateral=OffTargetSettings(items=2),
    search=SearchSettings(
        options={"length": 3, "population": 2, "children": 2, "top_k": 16},
        budget=Budget(steps=2),
        contexts=2,
        neutral=4,
    ),
    attribution=AttributionSettings(contexts=2, circuit=0, estimators=("removal",)),
)
#: Names of values that are times, or counted by the machine.
TIMES = frozenset(
    {
        "seconds",
        "began",
        "created",
        "ended",
        "peak_memory_mb",
        "updated",
        "time",
        "at",
        "started",
        "finished",
        "hostname",
        "pid",
        "token_layers_repeated",
        "flops",
        "stages",
        "test_reads",
        "directory",
        "out",
        "memory",
    }
)
#: Files that are not compared: they hold times, or are a picture of the others.
SHOWS_TIMES = frozenset({".lock", "log.jsonl", "report.html", "manifest.json", "timings.json"})


class Faults:
    """Counts operations, and meets a fault at the one numbered `at`."""

    def __init__(self, at: int = -1, kind: str = "") -> None:
        self.at, self.kind, self.seen = at, kind, 0
        self.places: list[str] = []

    def reached(self, what: str) -> None:
        """One operation is about to happen."""
        self.places.append(what)
        self.seen += 1
        if self.seen - 1 == self.at:
            if self.kind == "kill":
                os._exit(137)
            raise OSError(getattr(errno, self.kind), os.strerror(getattr(errno, self.kind)))


class _File:
    """An open file whose writes are operations."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def write(self, data: Any) -> Any:
        """Counted, and half done where the fault is."""
        if self._faults.seen == self._faults.at:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
        self._faults.reached("write")
        return self._file.write(data)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *stopped: Any) -> Any:
        return self._file.__exit__(*stopped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def faulty(faults: Faults) -> Iterator[None]:
    """While the block runs, opening for writing, writing, fsync and rename are operations of `faults`."""
    fdopen, fsync, replace, path_open = os.fdopen, os.fsync, os.replace, Path.open

    def counted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **more: Any) -> Any:
            faults.reached(what)
            return original(*arguments, **more)

        return operation

    def opened(self: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if "a" not in mode:
            return path_open(self, mode, *arguments, **more)
        faults.reached("open the log")
        return _File(path_open(self, mode, *arguments, **more), faults)

    def wrapped(*arguments: Any, **more: Any) -> Any:
        return _File(fdopen(*arguments, **more), faults)

    os.fdopen, os.fsync, os.replace = wrapped, counted("fsync", fsync), counted("rename", replace)  # type: ignore[assignment]
    Path.open = opened  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fdopen, os.fsync, os.replace = fdopen, fsync, replace
        Path.open = path_open  # type: ignore[method-assign]


def run_with(out: Path, faults: Faults, model: Any) -> str:
    """A run that meets a fault: "done", "killed", or the line of its UserError."""
    if faults.kind == "kill":
        child = os.fork()
        if child == 0:
            with faulty(faults):
                wb.run(STUDY, out, model=model)
            os._exit(0)
        return "killed" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137 else "done"
    try:
        with faulty(faults):
            wb.run(STUDY, out, model=model)
    except UserError as error:
        return str(error)
    return "done"


def content(directory: Path) -> dict[str, str]:
    """Name -> hash of what each file of a run says, without times."""
    found = {}
    for file in sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in SHOWS_TIMES):
        if file.suffix == ".json":
            text = json.dumps(_without_times(json.loads(file.read_text())), sort_keys=True)
        elif file.suffix == ".parquet":
            frame = pd.read_parquet(file)
            text = frame.drop(columns=[name for name in frame if name in TIMES]).to_json()
        else:
            text = file.read_bytes().hex() if not file.name.endswith(".checkpoint.safetensors") else ""
        found[str(file.relative_to(directory))] = hashlib.sha256(text.encode()).hexdigest()
    return found


def whole_files(directory: Path) -> list[str]:
    """Names of files that are damaged (half a file, or a temporary one that a live process left)."""
    bad = []
    for file in (p for p in directory.rglob("*") if p.is_file()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text())
            elif file.suffix == ".parquet":
                pd.read_parquet(file)
        except Exception:
            bad.append(str(file.relative_to(directory)))
    return bad


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def check(every: int = 1, offset: int = 0, kinds: tuple[str, ...] = KINDS) -> tuple[int, int, list[str]]:
    """(operations of a run, faults injected, what went wrong)."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    assert atomic_writing.os is os and run_directory.os is os
    model = wb.load_model("organism")
    gc.freeze()
    with tempfile.TemporaryDirectory() as scratch:
        place, counted = Path(scratch), Faults()
        with faulty(counted):
            wb.run(STUDY, place / "whole", model=model)
        wanted = content(place / "whole")
        injected, wrong = 0, []
        for at in range(offset, counted.seen, every):
            for kind in kinds:
                out = place / "run"
                shutil.rmtree(out, ignore_errors=True)
                begin, said = time.perf_counter(), run_with(out, Faults(at, kind), model)
                injected += 1
                where = f"{kind} at operation {at} ({counted.places[at]})"
                if kind == "kill" and said != "killed":
                    wrong.append(f"{where}: was not killed")
                if kind != "kill" and (said == "done" or "\n" in said or len(said) > 500):
                    wrong.append(f"{where}: {said[:200]}")
                if out.exists():
                    wrong += [f"{where}: {name} is damaged" for name in whole_files(out)]
                resumed = (out / "manifest.json").exists()
                try:
                    wb.run(
                        STUDY,
                        out if resumed or not out.exists() else _fresh(out),
                        resume=resumed,
                        model=model,
                    )
                    found = content(out)
                    wrong += [
                        f"{where}: after resume {name} differs"
                        for name in wanted.keys() | found.keys()
                        if wanted.get(name) != found.get(name)
                    ]
                except Exception as error:
                    wrong.append(f"{where}: cannot go on: {type(error).__name__}: {str(error)[:150]}")
                print(f"{where}: {said[:60]!r}, {time.perf_counter() - begin:.1f} s", *wrong[-1:], flush=True)
        return counted.seen, injected, wrong


def _fresh(out: Path) -> Path:
    shutil.rmtree(out)
    return out


def main() -> int:
    """Prints the figures; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description="Faults at every write, fsync and rename of a tiny run")
    parser.add_argument("--every", type=int, default=1, help="only every n-th operation")
    parser.add_argument("--offset", type=int, default=0)
    given = parser.parse_args()
    operations, injected, wrong = check(given.every, given.offset)
    print(*wrong, sep="\n")
    print(f"{operations} operations, {injected} faults injected, {len(wrong)} things went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
