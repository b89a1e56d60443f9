"""Commands that read finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_frame, say
from workbench.errors import UserError


@app.command
def compare(
    runs: list[Path],
    *,
    over_seeds: bool = False,
    against: str | None = None,
    figure: Path | None = None,
    questions: Literal["all", "flipped", "worse"] | None = None,
    as_json: Json = False,
) -> None:
    """Several runs side by side: condition by run, the prompts, what differed in the settings.

    Runs on different test questions are shown, and are not paired.

    Args:
        runs: run directories.
        over_seeds: one row per condition in place of one a run: mean effect over the runs, its interval and
            spread.
        against: the same for each budget spent, the curve of effect against it: model_calls, token_layers,
            flops or seconds.
        figure: also draw the effects into this file (.svg, .png, .html): each condition over the runs, or
            against what `against` names.
        questions: instead, single questions under each run's chosen prompt: all, those whose answer flipped,
            or those that got worse.
    """
    from workbench.cli.comparison_tables import print_side_by_side
    from workbench.comparison import compare_runs

    if questions is not None:
        print_frame(_questions(runs, questions), as_json)
        return
    if not (over_seeds or against or figure or as_json):
        print_side_by_side(runs)
        return
    table = compare_runs(runs)
    if figure is not None:
        _draw(table, against, figure)
    print_frame(
        table.against_budget(against) if against else table.by_condition if over_seeds else table.table,
        as_json,
    )


def _questions(runs: Sequence[Path], which: str) -> Any:
    """One row a question and run."""
    import pandas as pd

    from workbench.comparison import questions_of_run

    found = [questions_of_run(run).assign(run=str(run)) for run in runs]
    table = pd.concat(found, ignore_index=True)
    table = table if which == "all" else table[table[which]]
    shown = [
        "run",
        "condition",
        "question",
        "before",
        "after",
        "change",
        "flipped",
        "worse",
        "group",
        "matching",
        "not_matching",
    ]
    return table.reindex(shown, axis=1)


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


@app.command
def label(
    run: Path,
    latent: int | None = None,
    text: str | None = None,
    *,
    source: str = "the user",
    as_json: Json = False,
) -> None:
    """Name a latent of a run; the name is kept in the run and is shown in its report, figures and panel. Without a text: the names so far.

    Args:
        run: run directory.
        latent: number of the latent.
        text: its name; an empty one takes the name away.
        source: who gives it.
    """
    import pandas as pd

    from workbench.latents import label_entries, label_latents
    from workbench.report import write_report

    if latent is not None and text is not None:
        label_latents(run, {latent: text}, source)
        if (run / "report.html").is_file():
            write_report(run)
    entries = label_entries(run)
    if latent is not None and text is None:
        entries = {number: entry for number, entry in entries.items() if number == latent}
    columns = ["latent", "label", "source", "written"]
    print_frame(pd.DataFrame([entry.model_dump() for entry in entries.values()], columns=columns), as_json)


@app.command
def figures(
    run: Path,
    *,
    style: Literal["paper", "transparent"] = "paper",
    width: str = "3.3in",
    format: str = "pdf,svg,png",
    out: Path | None = None,
) -> None:
    """A run for a paper: every figure it has data for, tables in LaTeX and Markdown, captions, a methods paragraph and BibTeX.

    Args:
        run: run directory.
        style: paper has a white ground, transparent none.
        width: of a figure: 3.3in, 8.4cm, 84mm or 238pt.
        format: pdf, svg and png, with commas.
        out: the folder; RUN/figures when not given.
    """
    from workbench.report.paper import export_paper

    found = export_paper(run, out, style, width, format)
    for path in found.written:
        say(str(path))
    for line in found.left_out:
        say(f"left out: {line}")
