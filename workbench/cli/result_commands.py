"""Commands that read finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_frame, say
from workbench.errors import UserError


@app.command
def compare(
    runs: list[Path], *, over_seeds: bool = False, against: str | None = None, figure: Path | None = None, as_json: Json = False
) -> None:
    """Several runs in one table; refused where their test splits differ.

    Args:
        runs: run directories.
        over_seeds: one row per condition in place of one a run: mean shift over the runs, its interval and spread.
        against: the same for each budget spent, the curve of effect against it: model_calls, token_layers, flops or seconds.
        figure: also draw the shifts into this file (.svg, .png, .html): each condition over the runs, or against what `against` names.
    """
    from workbench.comparison import compare_runs

    table = compare_runs(runs)
    if figure is not None:
        _draw(table, against, figure)
    print_frame(table.against_budget(against) if against else table.by_condition if over_seeds else table.table, as_json)


def _draw(table: Any, against: str | None, target: Path) -> None:
    from workbench.report.figures.save_figure import check_target, save_figure

    check_target(target)
    from workbench.report import figures

    save_figure(figures.against(table, against) if against else figures.seeds(table), target)


@app.command
def report(runs: list[Path], *, out: Path | None = None) -> None:
    """Make a run's report.html again from its files; of several runs, one overview with a link to each one's report.

    Args:
        runs: where the runs are.
        out: another place for the page (for several runs: needed).
    """
    from workbench.report import write_overview, write_report

    if len(runs) == 1:
        target = write_report(runs[0], out or runs[0] / "report.html")
    elif out is None:
        raise UserError("an overview of several runs needs --out: where the page is to be written")
    else:
        target = write_overview(runs, out)
    say(f"report: {target}")
