"""List the runs in a folder, one line per run at any width of the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.cli.output_tables import print_lines, say
from workbench.errors import UserError

#: Depth to which subfolders are searched for runs (a sweep has its runs in a subfolder).
DEPTH = 3
HEADS = ("run", "persona", "model", "verdict", "date")


@dataclass(frozen=True)
class RunLine:
    """One run in the list of runs.

    Attributes:
        run: Path of the run below the folder.
        persona: Name of the persona.
        model: Name of the model.
        verdicts: The run's result in words, in several forms from long to short.
        created: Date and time, `2026-11-30 10:04`.
    """

    run: str
    persona: str
    model: str
    verdicts: tuple[str, ...]
    created: str


def list_runs(folder: Path) -> list[RunLine]:
    """Return the runs in a folder and its subfolders, the oldest first.

    If a run cannot be read, the error message takes the place of its result.
    """
    if not folder.is_dir():
        raise UserError(
            f"expected a folder of runs, found {'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    lines = [_line(path, folder) for path in _found(folder, DEPTH)]
    if not lines:
        raise UserError(f"no run in {folder}: `workbench demo` makes one")
    return sorted(lines, key=lambda line: line.created)


def run_frame(lines: list[RunLine]) -> pd.DataFrame:
    """Return the list of runs as a DataFrame with one row per run and its result in full."""
    return pd.DataFrame(
        [(line.run, line.persona, line.model, line.verdicts[0], line.created) for line in lines],
        columns=pd.Index(HEADS),
    )


def print_run_list(lines: list[RunLine]) -> None:
    """Print one line per run, shortened to the width of the terminal.

    Dates lose their time first, then results take shorter forms, and at last names are shortened.
    """
    rows = [
        ([line.run], [line.persona], [line.model], line.verdicts, [line.created, line.created[:10]])
        for line in lines
    ]
    if print_lines(HEADS, rows):
        say("shortened to the width of this terminal: --json has whole names, all shown claims and times")


def _found(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the run directories in a folder and below it."""
    if (folder / "manifest.json").is_file() and (
        (folder / "study.yaml").is_file() or (folder / "comparison.json").is_file()
    ):
        yield folder
        return
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            yield from _found(path, depth - 1)


def _line(path: Path, folder: Path) -> RunLine:
    from workbench.comparison import claims_of_run, read_comparison
    from workbench.runs import RunDirectory

    name, created = str(path.relative_to(folder)) if path != folder else path.name, ""
    try:
        created = RunDirectory.open(path).manifest().created[:16].replace("T", " ")
        if not (path / "comparison.json").is_file():
            return RunLine(name, *_of_study(path), _unfinished(path), created)
        comparison = read_comparison(path)
        return RunLine(
            name, *_spoken(comparison.persona, comparison.model), claims_of_run(path).summaries, created
        )
    except UserError as error:
        return RunLine(name, "", "", (f"cannot be read: {error}", "cannot be read"), created)


def _spoken(persona: str, model: str) -> tuple[str, str]:
    from workbench.html_text import spoken

    return spoken(persona), model if model.count("/") < 2 else Path(model).name


def _of_study(path: Path) -> tuple[str, str]:
    """Return persona and model of a run that has no comparison yet."""
    from workbench.study import Study

    study = Study.load(path / "study.yaml")
    return _spoken(study.persona, study.model.name)


def _unfinished(path: Path) -> tuple[str, ...]:
    from workbench.conditions import stage_label
    from workbench.runs import RunDirectory

    directory = RunDirectory.open(path)
    last = stage_label(next(reversed(directory.manifest().stages), "nothing"))
    if directory.is_held():
        return f"running ({last} done)", "running"
    return (
        f"not finished ({last} done): continue with --resume",
        f"not finished ({last} done)",
        "not finished",
    )
