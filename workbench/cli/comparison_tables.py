"""Tables of comparisons for the terminal: one run, or several side by side, at any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.cli.output_tables import console, print_rows, say
from workbench.comparison import claims_of_run, read_comparison
from workbench.comparison.claim_sentences import ends, percent, points, signed
from workbench.conditions import condition_label
from workbench.html_text import shorten, spoken
from workbench.runs import read_yaml
from workbench.schema import ComparisonFile, ConditionEntry

#: Terminal widths from which the table has a column for changes in points, and one for prompts.
ROOMY, WIDE = 100, 150
#: Widths of a run's column: with the rate, and without it.
CELL, NARROW_CELL = 31, 23


def print_comparison(comparison: ComparisonFile) -> None:
    """Print a comparison of conditions (prompts and controls) as a table, then the prompts' texts.

    Columns are the rate of answers that show the persona, and its change and that of the log-odds relative to
    no prompt, with 95 % intervals.
    """
    width, less = console().width, "less" if comparison.wanted < 0 else "more"
    title = f"{spoken(comparison.persona)} on {comparison.model} ({less} wanted); in brackets 95 % intervals"
    kept = [0, 1, *([2] if width >= ROOMY else []), 3, *([4] if width >= WIDE else [])]
    heads = ("condition", "rate", "change, points", "change, log-odds", "prompt")
    rows = [(*_figures(entry, comparison.baseline), entry.prompt or "") for entry in comparison.conditions]
    print_rows(
        [heads[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        title,
        whole=range(min(4, len(kept))),
    )
    if width < WIDE:
        _print_prompts((condition_label(c.name), c.prompt) for c in comparison.conditions)


def print_side_by_side(paths: Sequence[Path]) -> None:
    """Print several runs side by side.

    The text has each run's result in one sentence, a table of conditions (prompts and controls) by runs, the
    prompts, and the settings that differ.
    """
    runs = {str(path): read_comparison(path) for path in paths}
    for path in paths:
        say(f"{path}: {claims_of_run(path).headline if path.is_dir() else runs[str(path)].persona}")
    facts = {
        (run.splits[run.split].hash if run.split in run.splits else None, run.metric) for run in runs.values()
    }
    if len(facts) > 1:
        say(
            "note: these runs were not scored on the same questions by the same metric: they are side by side, and no difference is paired"
        )
    print_runs(runs)
    print_setting_differences({str(path): _settings(path) for path in paths})


def _settings(path: Path) -> dict[str, Any]:
    file = path / "study.yaml"
    return dict(_flat(read_yaml(file))) if file.is_file() else {}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def print_runs(runs: Mapping[str, ComparisonFile]) -> None:
    """Print a table with one row per condition (a prompt or a control) and one column per run.

    A cell has the rate of answers that show the persona, and the change of the log-odds relative to no prompt
    with its 95 % interval. If the terminal is too narrow for all runs, several tables are printed.
    """
    names = list(dict.fromkeys(entry.name for run in runs.values() for entry in run.conditions))
    first = max([9, *(len(condition_label(name)) for name in names)])
    room = console().width - first - 4
    cell = CELL if room // (CELL + 3) >= len(runs) else NARROW_CELL
    per_table, chosen = max(1, room // (cell + 3)), list(runs)
    title = f"{'rate, and ' if cell == CELL else ''}change in log-odds with its 95 % interval"
    for start in range(0, len(chosen), per_table):
        part = chosen[start : start + per_table]
        there = {entry.name for run in part for entry in runs[run].conditions}
        rows = [
            [condition_label(name), *(_of_run(runs[run], name, cell == CELL) for run in part)]
            for name in names
            if name in there
        ]
        print_rows(
            ["condition", *(shorten_path(run, cell) for run in part)], rows, title, whole=range(len(part) + 1)
        )
    for run, comparison in runs.items():
        found = [
            (f"{condition_label(c.name)}", c.prompt)
            for c in comparison.conditions
            if c.selection_rate is not None
        ]
        if found:
            say(f"{run}:")
            _print_prompts(found)


def print_setting_differences(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table of the settings that differ between runs.

    If the values are lists, only the entries that not all runs have are printed.
    """
    names = list(dict.fromkeys(name for own in settings.values() for name in own))
    rows = [[name, *_told([own.get(name) for own in settings.values()])] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if rows:
        print_rows(
            ["setting", *(shorten_path(run, 40) for run in settings)], rows, "what differed in the settings"
        )


def _told(values: Sequence[Any]) -> list[str]:
    if all(isinstance(value, list) for value in values):
        shared = set.intersection(*(set(map(str, value)) for value in values))
        return [", ".join(text for text in map(str, value) if text not in shared) or "-" for value in values]
    return [
        "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for value in values
    ]


def shorten_path(path: str, limit: int) -> str:
    """Shorten a path to `limit` characters by replacing its beginning with an ellipsis."""
    return path if len(path) <= limit else f"…{path[1 - limit :]}"


def _figures(entry: ConditionEntry, baseline: str) -> tuple[str, str, str, str]:
    found = None if entry.name == baseline else entry.difference(baseline)
    rate = (
        ""
        if entry.rate is None
        else _with_ends(percent(entry.rate), ends(entry.ci, lambda x: f"{100 * x:.0f}"))
    )
    change = (
        ""
        if found is None or found.value is None
        else _with_ends(points(found.value), ends(found.ci, points))
    )
    moved = (
        ""
        if found is None or found.log_odds is None
        else _with_ends(signed(found.log_odds), ends(found.log_odds_ci, signed))
    )
    return condition_label(entry.name), rate, change, moved


def _with_ends(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _of_run(comparison: ComparisonFile, name: str, rated: bool) -> str:
    entry = next((c for c in comparison.conditions if c.name == name), None)
    if entry is None:
        return "-"
    _, _, _, moved = _figures(entry, comparison.baseline)
    rate = "" if entry.rate is None else percent(entry.rate)
    return ", ".join(filter(None, [rate if rated or not moved else "", moved]))


def _print_prompts(prompts: Iterable[tuple[str, str | None]]) -> None:
    for name, prompt in prompts:
        if prompt:
            say(f"  {name}: {shorten(prompt, 300)}")
