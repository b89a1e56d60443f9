"""`export_paper(run)`: write every figure that the run has data for, with tables, captions and references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from workbench.conditions import condition_label
from workbench.errors import UserError
from workbench.html_text import shorten
from workbench.report import figures
from workbench.report.load_run import RunContents, readable_run
from workbench.report.paper.methods_text import captions, methods
from workbench.report.paper.print_style import formats_of, points_of, printed, save_printed
from workbench.report.paper.references import bibliography
from workbench.report.paper.tables import latex_table, markdown_table, table_rows
from workbench.runs import write_text

Style = Literal["paper", "transparent"]


@dataclass(frozen=True)
class PaperFiles:
    """Files that `export_paper` wrote.

    Attributes:
        written: Paths of the files.
        left_out: One line for each figure that the run has no data for.
    """

    written: tuple[Path, ...]
    left_out: tuple[str, ...]


def export_paper(
    run: str | Path,
    out: str | Path | None = None,
    style: Style = "paper",
    width: str = "3.3in",
    formats: str = "pdf,svg,png",
) -> PaperFiles:
    """Export a run's figures, tables, captions, methods paragraph and BibTeX to a folder.

    Args:
        run: The run directory.
        out: The folder; None for RUN/figures.
        style: "paper" for a white background, "transparent" for none.
        width: Width of a figure, as "3.3in", "8.4cm", "84mm" or "238pt".
        formats: File formats, separated by commas: pdf, svg, png.

    Returns:
        The files that were written, and the figures that were left out.

    Raises:
        UserError: The directory is no run, a format or the width is unknown, or the folder cannot be written.

    Example:
        >>> export_paper("runs/demo-001", width="3.3in", formats="pdf").written  # doctest: +SKIP
    """
    points, kinds = points_of(width), formats_of(formats)
    if style not in ("paper", "transparent"):
        raise UserError(f"unknown style {style!r}: expected paper or transparent")
    directory = Path(run)
    if not directory.is_dir():
        raise UserError(f"expected a run directory, found no directory at {directory}")
    folder = Path(out) if out is not None else directory / "figures"
    contents = readable_run(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    written, left_out = [], []
    for name, draw in _figures(directory, contents):
        try:
            chart, title = draw()
        except UserError as error:
            left_out.append(f"{name}: {error}")
            continue
        for kind in kinds:
            target = folder / f"{name}.{kind}"
            written.append(save_printed(printed(chart, title, points, style == "transparent"), target))
    return PaperFiles((*written, *_texts(folder, contents)), tuple(left_out))


def _figures(directory: Path, contents: RunContents) -> Iterator[tuple[str, Callable[[], tuple[Any, str]]]]:
    """Yield the name of each figure and a function that draws it and returns it with its title.

    The function raises UserError if the run has no data for the figure.
    """
    comparison, direction, inside = contents.comparison, contents.direction, contents.attribution
    yield (
        "forest",
        lambda: (
            figures.forest(_there(comparison, "comparison.json").to_json()),
            "Change against no prompt, 95 % intervals",
        ),
    )
    yield (
        "questions",
        lambda: (
            figures.questions(_there(contents.evaluation, "evaluation.parquet")),
            "Single test questions, log-odds",
        ),
    )
    for name, search in (contents.frontier.searches if contents.frontier else {}).items():
        entry = search.model_dump(mode="json")
        yield (
            f"frontier_{name.replace(' ', '_')}",
            lambda entry=entry, name=name: (
                figures.frontier(entry),
                f"Prompts of the search {condition_label(name)}",
            ),
        )
    yield (
        "layers",
        lambda: (figures.layers(_there(direction, "direction.json").model_dump()), "Directions by layer"),
    )
    ledger = directory / "attribution.parquet"
    yield (
        "ledger",
        lambda: (figures.heatmap(_labelled(_read(ledger), contents), rows=12), "Token effects by removal"),
    )
    mediation = [entry.model_dump() for entry in inside.mediation]
    yield (
        "mediation",
        lambda: (figures.mediation(mediation), "Whole effect, and the part through each mediator"),
    )
    doses = [entry.model_dump() for entry in inside.dose]
    yield "dose", lambda: (figures.dose(doses), "Dose and response, 95 % intervals")


def _there(value: Any, name: str) -> Any:
    if value is None:
        raise UserError(f"{name} is not there or cannot be read")
    return value


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path.name} is not there")
    return pd.read_parquet(path)


def _labelled(table: pd.DataFrame, contents: RunContents) -> pd.DataFrame:
    """Return the ledger's table with users' labels of latents."""
    names = {
        f"latent {latent}": f"latent {latent}: {shorten(entry.label, 40)}"
        for latent, entry in contents.labels.items()
    }
    return table.assign(target=table["target"].replace(names)) if names else table


def _texts(folder: Path, contents: RunContents) -> list[Path]:
    """Write tables, captions, methods and BibTeX."""
    told, (paragraph, cited) = captions(contents), methods(contents)
    version = contents.manifest.versions.get("persona-workbench", "") if contents.manifest else ""
    texts = {
        "captions.md": "".join(f"**{name}**: {text}\n\n" for name, text in told.items()),
        "methods.tex": paragraph + "\n",
        "references.bib": bibliography(cited, version),
    }
    if contents.comparison is not None:
        rows = table_rows(contents.comparison)
        texts |= {
            "table.tex": latex_table(rows, told.get("table", "")),
            "table.md": markdown_table(rows, told.get("table", "")),
        }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
