"""Commands that find, open and watch runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.cli.app import Json, app
from workbench.cli.output_tables import console, plain, print_frame, say
from workbench.errors import UserError

#: How deep runs are looked for below a directory (a sweep has its runs in a folder of its own).
DEPTH = 3


@app.command
def runs(folder: Path = Path("runs"), *, as_json: Json = False) -> None:
    """The runs in a folder, a line each: persona, model, verdict, date.

    Args:
        folder: where the runs are; runs in folders below it are found too.
    """
    import pandas as pd

    if not folder.is_dir():
        raise UserError(f"expected a folder of runs, found {'a file' if folder.exists() else 'nothing'} at {folder}")
    rows = [_summary(path, folder) for path in _found(folder, DEPTH)]
    if not rows:
        raise UserError(f"no run in {folder}: `workbench demo` makes one")
    print_frame(pd.DataFrame(sorted(rows, key=lambda row: row["date"])), as_json)


@app.command(name="open")
def open_run(run: Path) -> None:
    """Open a run's report in the browser; it is written first where it is missing.

    Args:
        run: run directory.
    """
    import webbrowser

    from workbench.report import write_report

    page = run / "report.html"
    if not page.is_file():
        page = write_report(run)
    opened = webbrowser.open(page.resolve().as_uri())
    say(f"report: {page}" + ("" if opened else " (no browser could be opened here)"))


@app.command
def watch(run: Path, *, every: float = 1.0, once: bool = False) -> None:
    """A running study in the terminal: stages, step, frontier, time left. Ends with the study.

    Args:
        run: run directory.
        every: seconds between two looks.
        once: look once.
    """
    from rich.live import Live

    from workbench.runs import RunDirectory

    directory = RunDirectory.open(run)
    if once or not console().is_terminal:
        say("\n".join(_state(directory)))
    if once:
        return
    with Live(console=console(), refresh_per_second=4, transient=True) as live:
        while not _ended(directory):
            live.update(plain("\n".join(_state(directory))))
            time.sleep(max(0.2, every))
    say("\n".join(_state(directory)))


def _found(folder: Path, depth: int) -> Iterator[Path]:
    """Run directories in a folder and below it."""
    if (folder / "manifest.json").is_file() and ((folder / "study.yaml").is_file() or (folder / "comparison.json").is_file()):
        yield folder
        return
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            yield from _found(path, depth - 1)


def _summary(path: Path, folder: Path) -> dict[str, Any]:
    """What one line says of a run; a broken one says why."""
    from workbench.comparison import claims_of_run, read_comparison
    from workbench.html_text import spoken
    from workbench.runs import RunDirectory

    row = {"run": str(path.relative_to(folder)) if path != folder else path.name, "persona": "", "model": "", "verdict": "", "date": ""}
    try:
        row["date"] = RunDirectory.open(path).manifest().created[:16].replace("T", " ")
        if not (path / "comparison.json").is_file():
            return row | {"verdict": _unfinished(path)}
        comparison = read_comparison(path)
        row |= {"persona": spoken(comparison.persona), "model": comparison.model if comparison.model.count("/") < 2 else Path(comparison.model).name}
        return row | {"verdict": claims_of_run(path).summary}
    except UserError as error:
        return row | {"verdict": f"cannot be read: {error}"}


def _unfinished(path: Path) -> str:
    from workbench.conditions import stage_label
    from workbench.runs import RunDirectory

    directory = RunDirectory.open(path)
    last = stage_label(next(reversed(directory.manifest().stages), "nothing"))
    return f"running ({last} done)" if _held(directory) else f"not finished ({last} done): continue with --resume"


def _held(directory: Any) -> bool:
    """Does a process write to the run now?"""
    try:
        with directory.lock(patience=0.0):
            return False
    except UserError:
        return True


def _ended(directory: Any) -> bool:
    return (not (directory.path / "progress.json").is_file() and "report" in directory.manifest().stages) or not _held(directory)


def _state(directory: Any) -> list[str]:
    """The stages that are done, the one that runs, and its frontier."""
    from workbench.conditions import stage_label
    from workbench.runs import read_run_file
    from workbench.schema import ProgressFile

    lines = [f"{stage_label(name):<28} done  {stage.seconds:8.1f} s" for name, stage in directory.manifest().stages.items()]
    file = directory.path / "progress.json"
    if file.is_file():
        now = read_run_file(file, ProgressFile)
        lines.append(f"{stage_label(now.stage):<28} {100 * now.share:3.0f} %  {now.line}".rstrip())
        lines += [f"    {entry.objective or 0.0:+.2f}, {entry.fluency or 0.0:.2f} nats: {entry.text}" for entry in now.frontier]
        if not _held(directory):
            lines.append(f"no process writes to this run (last sign {time.time() - now.updated:.0f} s ago): continue with --resume")
    elif (directory.path / "comparison.json").is_file():
        from workbench.comparison import claims_of_run

        lines.append(claims_of_run(directory.path).headline)
    return lines
