"""Commands that list, open and watch runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from workbench.cli.app import Json, app
from workbench.cli.output_tables import console, plain, print_frame, say


@app.command
def runs(folder: Path = Path("runs"), *, as_json: Json = False) -> None:
    """List the runs in a folder, one per line.

    A line has the persona, the model, the result in words and the date.

    Args:
        folder: Folder of the runs; its subfolders are searched too.
    """
    from workbench.cli.run_list import list_runs, print_run_list, run_frame

    lines = list_runs(folder)
    if as_json:
        print_frame(run_frame(lines), as_json)
    else:
        print_run_list(lines)


@app.command(name="open")
def open_run(run: Path) -> None:
    """Open a run's report in the browser.

    A missing report is written first.

    Args:
        run: Run directory.
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
    """Show a running study in the terminal until it ends.

    It shows the stages, the step of the search, the strongest prompts so far and the time left.

    Args:
        run: Run directory.
        every: Seconds between two updates.
        once: Print the present state once and exit.
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


def _ended(directory: Any) -> bool:
    return (
        not (directory.path / "progress.json").is_file() and "report" in directory.manifest().stages
    ) or not directory.is_held()


def _state(directory: Any) -> list[str]:
    """Return lines on the finished stages, the running stage, and its frontier."""
    from workbench.conditions import stage_label
    from workbench.runs import read_run_file
    from workbench.schema import ProgressFile

    lines = [
        f"{stage_label(name):<28} done  {stage.seconds:8.1f} s"
        for name, stage in directory.manifest().stages.items()
    ]
    file = directory.path / "progress.json"
    if file.is_file():
        now = read_run_file(file, ProgressFile)
        lines.append(f"{stage_label(now.stage):<28} {100 * now.share:3.0f} %  {now.line}".rstrip())
        lines += [
            f"    {entry.objective or 0.0:+.2f}, {entry.fluency or 0.0:.2f} nats: {entry.text}"
            for entry in now.frontier
        ]
        if not directory.is_held():
            lines.append(
                f"no process writes to this run (last sign {time.time() - now.updated:.0f} s ago): continue with --resume"
            )
    elif (directory.path / "comparison.json").is_file():
        from workbench.comparison import claims_of_run

        lines.append(claims_of_run(directory.path).headline)
    elif not directory.is_held():
        lines.append("not finished, and no process writes to this run: continue with --resume")
    return lines
