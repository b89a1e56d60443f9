"""Tables of several runs, read from their comparison.json.

1. Every run's comparison.json is read and checked (schema 1, the fields that are used).
2. All runs must have been scored on the same questions (the hash of the split) with the same metric.
   Otherwise there is an error that names two runs.
3. There is one row per run and condition. Because the result of a prompt search varies with its seed, there
   is also one row per condition over the seeds: mean, standard deviation between seeds, minimum and maximum,
   never the best run alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench import html_text
from workbench.budget import COSTS
from workbench.errors import UserError
from workbench.runs import read_run_file, read_timings
from workbench.schema import ComparisonFile, ConditionEntry, CostEntry, DifferenceEntry, SplitEntry
from workbench.statistics import over_seeds


@dataclass(frozen=True, repr=False)
class RunsTable(html_text.ShowsTable):
    """Results of several runs that were scored on the same questions.

    Attributes:
        table: Table with one row per run and condition.
    """

    table: pd.DataFrame

    @property
    def by_condition(self) -> pd.DataFrame:
        """Table with one row per persona, model, sign, kind and condition, over the seeds.

        It has the number of runs, the mean rate and mean effect with a t interval over runs, and the standard
        deviation, minimum and maximum of the effect. Identical results of several runs count once. A search
        finds other prompts with each seed, so its prompts are one condition, named after the search method.
        """
        keys = ["persona", "model", "sign", "kind", "condition"]
        return pd.DataFrame(
            [_named(keys, key) | _spread(part) for key, part in self.table.groupby(keys, sort=False)]
        )

    def against_budget(self, unit: str = "flops") -> pd.DataFrame:
        """Return the curve of the effect against the search cost.

        There is one row per condition and budget, cheapest first, with the mean effect over the runs and its
        spread as in `by_condition`. Runs whose costs are within a fifth of each other count as one budget,
        because searches end at whole steps; the budget is their mean cost. Conditions without cost are left
        out.

        Args:
            unit: Unit of the cost: "model_calls", "token_layers", "flops" or "seconds".

        Raises:
            UserError: The unit is unknown.
        """
        if unit not in COSTS:
            raise UserError(f"unknown budget {unit!r}: expected one of {', '.join(COSTS)}")
        keys = ["persona", "model", "sign", "kind", "condition"]
        bought = self.table.loc[self.table[unit].astype(float) > 0].sort_values(by=unit)
        rows = []
        for key, part in bought.groupby(keys, sort=False):
            budget = (part[unit] > 1.2 * part[unit].shift()).cumsum()
            rows += [
                _named(keys, key) | {"budget": runs[unit].mean()} | _spread(runs)
                for _, runs in part.groupby(budget)
            ]
        return pd.DataFrame(rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the table's rows as plain values for JSON; a missing value is null."""
        return [
            {k: None if pd.isna(v) else v for k, v in row.items()} for row in self.table.to_dict("records")
        ]

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return a caption with the number of runs and the table of their results, to show in a notebook."""
        return f"{self.table['run'].nunique()} runs", self.table


def compare_runs(paths: Sequence[str | Path]) -> RunsTable:
    """Read several runs into one table.

    Args:
        paths: Run directories, or comparison.json files.

    Returns:
        One row per run and condition; `.by_condition` has the mean over runs.

    Raises:
        UserError: A file has another schema version or lacks a field, or two runs were scored on different
            test questions or by different metrics; both are named.

    Example:
        >>> wb.compare_runs(["runs/seed0", "runs/seed1"]).by_condition  # doctest: +SKIP
    """
    if not paths:
        raise UserError("expected at least one run directory to compare")
    runs = [(str(path), _read(Path(path))) for path in paths]
    for (first_path, first), (path, run) in itertools.pairwise(runs):
        _check_same(first_path, first, path, run)
    return RunsTable(pd.DataFrame([row for path, run in runs for row in _rows(path, run)]))


def run_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read one run into rows as in `compare_runs`, one per condition.

    Each row also has `questions`, the hash of the questions that the run was scored on. Rows of several runs
    are comparable only if this hash is the same.
    """
    run = _read(Path(path))
    return [row | {"questions": run.splits[run.split].hash} for row in _rows(str(path), run)]


def read_comparison(path: str | Path) -> ComparisonFile:
    """Read comparison.json.

    Args:
        path: The file, or the run directory that contains it.

    Raises:
        UserError: The file is missing or invalid.
    """
    place = Path(path)
    return read_run_file(place / "comparison.json" if place.is_dir() else place, ComparisonFile)


def _read(path: Path) -> ComparisonFile:
    file, run = path / "comparison.json" if path.is_dir() else path, read_comparison(path)
    if run.split not in run.splits or run.splits[run.split].hash is None:
        raise UserError(
            f"{file}: no hash of the split {run.split!r}: it cannot be told whether runs were scored on the same questions"
        )
    return run


def _check_same(first_path: str, first: ComparisonFile, path: str, run: ComparisonFile) -> None:
    one, other = (r.splits[r.split] for r in (first, run))
    if one.hash != other.hash:
        raise UserError(
            f"the runs were scored on different questions: {first_path} on {first.split} {_short(one)} of {first.persona}, "
            f"{path} on {run.split} {_short(other)} of {run.persona}"
        )
    if first.metric != run.metric:
        raise UserError(
            f"the runs were scored by different metrics: {first_path} by {first.metric}, {path} by {run.metric}"
        )


def _short(split: SplitEntry) -> str:
    return f"{str(split.hash)[:12]} ({'?' if split.n is None else split.n} items)"


def _rows(path: str, run: ComparisonFile) -> list[dict[str, Any]]:
    place = Path(path)
    seconds = read_timings(place if place.is_dir() else place.parent).conditions
    rows = [_row(path, run, entry) for entry in run.conditions]
    return [
        row | {"seconds": seconds.get(row["condition"])} if row["seconds"] is None else row for row in rows
    ]


def _row(path: str, run: ComparisonFile, entry: ConditionEntry) -> dict[str, Any]:
    shift = entry.difference(run.baseline) or DifferenceEntry(to=run.baseline)
    low, high = entry.ci
    shift_low, shift_high = shift.log_odds_ci
    cost = entry.cost or CostEntry()
    return {
        "run": path,
        "persona": run.persona,
        "model": run.model,
        "sign": run.sign,
        "seed": run.seed,
        "condition": entry.name,
        "kind": entry.kind,
        "rate": entry.rate,
        "rate_low": low,
        "rate_high": high,
        "log_odds": entry.log_odds,
        "shift": shift.log_odds,
        "shift_low": shift_low,
        "shift_high": shift_high,
        "p": shift.p,
        "letter_a": entry.letter_a_share,
        "cross_entropy": entry.fluency,
        "search_rate": entry.search_rate,
        "selection_rate": entry.selection_rate,
        **{name: getattr(cost, name) for name in COSTS},
        "prompt": entry.prompt,
    }


def independent_runs(part: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each different result, without repetitions of the same random draw.

    Runs with the same prompt and exactly the same effect repeat one draw (such as a manual prompt, or a
    control with the same seed). Counting it twice would give an interval of width 0.
    """
    names = [name for name in ("prompt", "log_odds", "shift") if name in part]
    return part.drop_duplicates(names)


def _named(names: Sequence[str], key: Any) -> dict[str, Any]:
    """Return the values of a group's key by the names of its columns."""
    return dict(zip(names, key, strict=True))


def _spread(part: pd.DataFrame) -> dict[str, Any]:
    part = independent_runs(part)
    found: dict[str, Any] = {"runs": len(part), "rate": part["rate"].mean(), "shift": part["shift"].mean()}
    shifts = [float(value) for value in part["shift"].dropna()]
    if len(shifts) < 2:
        return found
    spread = over_seeds(shifts)
    low, high = spread.interval.low, spread.interval.high
    sizes = {
        "shift_sd": spread.standard_deviation,
        "shift_smallest": spread.smallest,
        "shift_largest": spread.largest,
    }
    return found | {"shift_low": low, "shift_high": high, **sizes}
