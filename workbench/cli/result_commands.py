"""Commands that read finished runs: compare, report, label, figures."""

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
    """Compare several runs side by side.

    The tables show the effects of conditions (prompts and controls), the prompts, and differences in
    settings. If runs have different test questions, they are shown, but no difference between them is
    computed.

    Args:
        runs: Run directories.
        over_seeds: Print one row per condition instead of one per run: mean effect over the runs, its
            interval and spread.
        against: Print one row per condition and search budget, to see how the effect grows with model_calls,
            token_layers, flops or seconds (one of them is given).
        figure: File (.svg, .png, .html) for a figure of the effects: each condition over the runs, or against
            the quantity that --against names.
        questions: Print single questions with each run's chosen prompt instead: all, those whose answer
            flipped, or those that got worse.
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
    """Return a table with one row per question and run."""
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
    """Write a run's report again, or an overview of several runs.

    The overview links to the report of each run.

    Args:
        runs: Run directories.
        out: File for the page. Required for several runs; default for one run: report.html in the run.
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
    """Name an SAE latent of a run, or list the names given so far.

    The name is kept in the run, and is shown in its report, figures and panel.

    Args:
        run: Run directory.
        latent: Number of the latent.
        text: Name of the latent; an empty text removes the name. Default: the present names are printed.
        source: Who gives the name.
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
    """Export the figures, tables and texts of a run for a paper.

    It writes every figure that the run has data for, tables in LaTeX and Markdown, captions, a methods
    paragraph and BibTeX.

    Args:
        run: Run directory.
        style: Background of the figures: white (paper) or none (transparent).
        width: Width of a figure: 3.3in, 8.4cm, 84mm or 238pt.
        format: File formats, separated by commas: pdf, svg, png.
        out: Folder for the files. Default: RUN/figures.
    """
    from workbench.report.paper import export_paper

    found = export_paper(run, out, style, width, format)
    for path in found.written:
        say(str(path))
    for line in found.left_out:
        say(f"left out: {line}")
