"""The state of a sweep, read from the run directories of its studies (`runs/KEY`) and stored nowhere else.

| state | meaning |
|---|---|
| done | all stages ended and their files are unchanged; never run again |
| failed | `failure.json` has the reason (or another version made the directory); run again on request only |
| interrupted | begun but not ended; the next run of the sweep resumes it |
| busy | another process holds its lock, so it is left to that process |
| new | there is no run directory |
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
#: Name of the last stage of a study.
LAST = "report"


@dataclass(frozen=True)
class StudyOutcome:
    """The state of a study of a sweep.

    Attributes:
        key: Key of the study, a hash of its settings.
        state: "done", "failed", "interrupted", "busy" (another process runs it) or "new".
        reason: One line for a study that failed or is busy; otherwise empty.
        seconds: Total time of its stages; None if it is not known.
    """

    key: str
    state: State
    reason: str = ""
    seconds: float | None = None


def run_path(out: Path, key: str) -> Path:
    """Return the run directory of a study in a sweep's directory.

    Args:
        out: Directory of the sweep.
        key: Key of the study, a hash of its settings.

    Returns:
        The path; the directory may not exist yet.
    """
    return out / "runs" / key


def look(out: Path, key: str) -> StudyOutcome:
    """Return the state of a study, read from its run directory alone.

    Args:
        out: Directory of the sweep.
        key: Key of the study, a hash of its settings.

    Returns:
        The state: done, failed, interrupted, busy or new.
    """
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
    """Whether no process holds the lock of a run directory."""
    try:
        with run.lock(patience=0.0):
            return True
    except UserError:
        return False


def write_failure(run: RunDirectory, reason: str, trace: str = "") -> None:
    """Record in the run directory why its study failed.

    Args:
        run: The run directory.
        reason: The reason in one line.
        trace: The traceback.
    """
    write_json(run.path / FAILURE, {"schema": 1, "reason": reason, "traceback": trace})
    run.log("failed", {"reason": reason})


def forget_failure(run: RunDirectory) -> None:
    """Delete the record of a study's failure, because the study is run again."""
    with contextlib.suppress(FileNotFoundError):
        (run.path / FAILURE).unlink()


def results(out: Path, planned: Sequence[PlannedStudy], outcomes: Sequence[StudyOutcome]) -> pd.DataFrame:
    """Return a table with one row per finished study and condition.

    A condition is a prompt or a control. A row has the study's number, key and varied settings, and the
    figures of the condition: rate, effect in log-odds with its interval, cost, prompt. Rows may be compared
    if they have the same value of `questions`, a hash of the test questions.

    Args:
        out: Directory of the sweep.
        planned: The studies.
        outcomes: Their states.

    Returns:
        The table; empty if no study is done.
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
    """Return a setting as a table cell; lists and mappings become text, so that a column has one type."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
