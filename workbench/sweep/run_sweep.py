"""`sweep(...)` runs every study of a sweep once, on this machine or on a Ray cluster.

1. Expand the sweep and check every study, so that an invalid one is refused before anything runs.
2. Read from the run directories which studies are done, failed, interrupted or new; no other state is kept.
3. Run the remaining ones: first the interrupted ones, which resume from their checkpoints, then the others
   sorted by model, so that a model is loaded rarely.
4. At the end, even after Ctrl-C, write results.parquet of all finished studies and overview.html with a link
   to each one's report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.errors import UserError
from workbench.html_text import ShowsTable
from workbench.report import OverviewRun, write_overview
from workbench.runs import write_parquet, write_text
from workbench.sweep.live_table import LiveTable
from workbench.sweep.ray_workers import WorkerPool, run_pool
from workbench.sweep.resolve_studies import PlannedStudy, plan
from workbench.sweep.serial_worker import run_here
from workbench.sweep.sweep_settings import Sweep
from workbench.sweep.sweep_store import StudyOutcome, look, results, run_path

FILE = "sweep.yaml"


@dataclass(frozen=True, repr=False)
class SweepResult(ShowsTable):
    """State and results of a sweep.

    Attributes:
        path: Directory of the sweep.
        studies: One row per study: number, settings that vary, state, reason, seconds, run directory.
        results: One row per finished study and condition (results.parquet).

    Example:
        >>> wb.sweep("sweep.yaml").results.groupby("condition")["rate"].mean()  # doctest: +SKIP
    """

    path: Path
    studies: pd.DataFrame
    results: pd.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Number of the sweep's studies in each state (done, failed, ...)."""
        return dict(Counter(self.studies["state"]))

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the caption and the rows of the table of studies that notebooks show."""
        caption = ", ".join(f"{n} {state}" for state, n in self.counts.items())
        return f"{len(self.studies)} studies: {caption}", self.studies.drop(columns="run")


def sweep(
    what: Sweep | str | Path,
    out: str | Path | None = None,
    workers: int | None = None,
    address: str | None = None,
    rerun_failed: bool = False,
    threads: int | None = None,
) -> SweepResult:
    """Run the studies of a sweep that are not done, and return the state and results of all.

    Args:
        what: A `Sweep`, or the path of its file.
        out: Directory of the sweep; None for runs/NAME. An earlier sweep in it is continued.
        workers: Number of worker processes; None for 1 or, with `address`, for all of the cluster's GPUs or
            CPUs. One worker without an address is this process and needs no Ray.
        address: Address of a Ray cluster ("auto", "host:port"); `out` and the data must be on a file system
            that all of its nodes share.
        rerun_failed: Whether failed studies are run again.
        threads: Number of torch threads of each worker; None for 1, whatever the number of workers, because
            the last bits of the results depend on it.

    Returns:
        Tables of studies and results. A study that fails while running does not stop the others.

    Raises:
        UserError: Some study cannot run; it is raised before anything runs.

    Example:
        >>> wb.sweep("sweep.yaml", workers=4).studies  # doctest: +SKIP
    """
    asked = what if isinstance(what, Sweep) else Sweep.load(what)
    if workers is not None and workers < 1:
        raise UserError(f"expected at least one worker, found {workers}")
    if threads is not None and threads < 1:
        raise UserError(f"expected at least one thread, found {threads}")
    planned = plan(asked.expand(), here=address is None)
    place = _directory(Path(out) if out is not None else Path("runs") / asked.name)
    outcomes = {p.key: look(place, p.key) for p in planned}
    wanted = [p for p in planned if outcomes[p.key].state in ("new", "interrupted", "failed")]
    wanted = [p for p in wanted if rerun_failed or outcomes[p.key].state != "failed"]
    order = sorted(wanted, key=lambda p: (outcomes[p.key].state != "interrupted", p.study.model.name))
    here = address is None and (workers or 1) == 1
    threads, seconds = threads or 1, asked.study_seconds
    write_text(place / FILE, asked.to_yaml())
    waiting = {p.key for p in order}
    try:
        with LiveTable(
            {p.key: p.variant.label for p in planned},
            [o for key, o in outcomes.items() if key not in waiting],
        ) as show:
            pool = WorkerPool(workers, threads, address, seconds)
            todo = (
                run_here(order, place, threads, seconds, show.stage)
                if here
                else run_pool(order, place, pool, show.stage)
            )
            for outcome in todo if order else ():
                outcomes[outcome.key] = outcome
                show.ended(outcome)
    finally:
        found = _write_results(place, asked, planned, [outcomes[p.key] for p in planned])
    return found


def _directory(place: Path) -> Path:
    """Make the sweep's directory if it does not exist; refuse one that holds something else."""
    if place.exists() and not place.is_dir():
        raise UserError(f"{place}: expected a directory for the sweep, found a file")
    if place.is_dir() and any(place.iterdir()) and not (place / FILE).is_file():
        raise UserError(f"{place} is not empty and holds no sweep ({FILE}): choose another directory")
    try:
        (place / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror or error}") from error
    return place.absolute()


def _write_results(
    place: Path, asked: Sweep, planned: Sequence[PlannedStudy], outcomes: Sequence[StudyOutcome]
) -> SweepResult:
    table = results(place, planned, outcomes)
    studies = pd.DataFrame(
        [_study_row(place, p, outcome) for p, outcome in zip(planned, outcomes, strict=True)]
    )
    write_parquet(place / "results.parquet", table)
    runs = [
        OverviewRun(run_path(place, p.key), p.variant.label, outcome.state, outcome.reason)
        for p, outcome in zip(planned, outcomes, strict=True)
    ]
    write_overview(runs, place / "overview.html", asked.name)
    return SweepResult(place, studies, table)


def _study_row(place: Path, p: PlannedStudy, outcome: StudyOutcome) -> dict[str, object]:
    settings = {
        name: str(value) if isinstance(value, (list, tuple, dict)) else value
        for name, value in p.variant.varied.items()
    }
    row: dict[str, object] = {
        "study": p.variant.number,
        **settings,
        "state": outcome.state,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
    }
    return row | {"run": str(run_path(place, p.key).relative_to(place))}
