"""What is true of a sweep is on the disk: one run directory for each study, `runs/KEY`, and nothing else decides.

| state | means |
|---|---|
| done | all stages ended and their files are as they were written: never run again |
| failed | `failure.json` says why (or the directory is another version's): run again only when asked |
| interrupted | begun, not ended: the next run of the sweep resumes it |
| busy | another process holds its lock: left to it |
| new | nothing there |
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from workbench.comparison import run_rows
from workbench.errors import UserError
from workbench.runs import RunDirectory, read_json, write_json
from workbench.sweep.resolve_studies import PlannedStudy

State = Literal["done", "failed", "interrupted", "busy", "new"]
FAILURE = "failure.json"
#: The last stage of a study.
LAST = "report"


@dataclass(frozen=True)
class StudyOutcome:
    """The state of a study. reason: one line, for one that failed or is busy; seconds: of all its stages, None where unknown."""

    key: str
    state: State
    reason: str = ""
    seconds: float | None = None


def run_path(out: Path, key: str) -> Path:
    """The run directory of a study."""
    return out / "runs" / key


def look(out: Path, key: str) -> StudyOutcome:
    """The state of the study, read from its directory alone."""
    path = run_path(out, key)
    if not path.is_dir() or not (path / "manifest.json").exists():
        return StudyOutcome(key, "new")
    try:
        run = RunDirectory.open(path)
        stages = run.manifest().stages
        if run.done("comparison") and LAST in stages:
            return StudyOutcome(key, "done", seconds=sum(stage.seconds for stage in stages.values()))
        if not is_free(run):
            return StudyOutcome(key, "busy", "another process works on it")
        if (path / FAILURE).exists():
            return StudyOutcome(key, "failed", str(read_json(path / FAILURE, schema=1).get("reason")))
    except UserError as error:
        return StudyOutcome(key, "failed", str(error))
    return StudyOutcome(key, "interrupted")


def is_free(run: RunDirectory) -> bool:
    """Does nobody hold the run's lock?"""
    try:
        with run.lock(patience=0.0):
            return True
    except UserError:
        return False


def write_failure(run: RunDirectory, reason: str, trace: str = "") -> None:
    """Says in the run directory why its study failed."""
    write_json(run.path / FAILURE, {"schema": 1, "reason": reason, "traceback": trace})
    run.log("failed", {"reason": reason})


def forget_failure(run: RunDirectory) -> None:
    """The study is tried again."""
    with contextlib.suppress(FileNotFoundError):
        (run.path / FAILURE).unlink()


def results(out: Path, planned: Sequence[PlannedStudy], outcomes: Sequence[StudyOutcome]) -> pd.DataFrame:
    """One row per finished study and condition.

    The study's number, key and varied settings, then the figures of its comparison (rates, effects in
    log-odds with their intervals, cost, prompt). Rows may be compared where `questions` is the same.
    """
    done = {outcome.key for outcome in outcomes if outcome.state == "done"}
    names = list(dict.fromkeys(name for p in planned for name in p.variant.varied))
    rows = []
    for p in planned:
        if p.key in done:
            settings = {name: _plain(p.variant.varied.get(name)) for name in names}
            rows += [
                {"study": p.variant.number, **settings, **row, "run": p.key}
                for row in run_rows(run_path(out, p.key))
            ]
    return pd.DataFrame(rows or {"study": [], "condition": []})


def _plain(value: Any) -> Any:
    """A setting as a cell: lists and mappings as text, so that a column has one type."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
