"""Commands that read finished runs."""

from __future__ import annotations

from pathlib import Path

from workbench.cli.app import Json, app
from workbench.cli.printing import console, print_frame
from workbench.errors import UserError


@app.command
def compare(runs: list[Path], *, over_seeds: bool = False, against: str | None = None, as_json: Json = False) -> None:
    """Several runs in one table; refused where their test splits differ.

    Args:
        runs: run directories.
        over_seeds: one row a condition in place of one a run: mean shift over the runs, its interval and spread.
        against: the same for each budget spent, the curve of effect against it: model_calls, token_layers, flops or seconds.
    """
    from workbench.comparison import compare_runs

    table = compare_runs(runs)
    print_frame(table.against_budget(against) if against else table.by_condition if over_seeds else table.table, as_json)


@app.command
def report(runs: list[Path], *, out: Path | None = None) -> None:
    """Make a run's report.html again from its files; of several runs, one overview with a link to each one's report.

    Args:
        runs: where the runs lie.
        out: another place for the page (for several runs: needed).
    """
    from workbench.report import write_overview, write_report

    if len(runs) == 1:
        target = write_report(runs[0], out or runs[0] / "report.html")
    elif out is None:
        raise UserError("an overview of several runs needs --out: where the page is to be written")
    else:
        target = write_overview(runs, out)
    console().print(f"report: {target}", highlight=False)
