"""Read a run directory for the report; missing and broken files become lines of text.

1. Each file is read separately, validated, and left out with a note if it is invalid.
2. Every text passes through `display.visible`, and every number that is not finite becomes None, so that the
   result is safe JSON.
3. Data that are too large for one page are cut, and the cut becomes a note.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow
import yaml
from pydantic import ValidationError

from workbench.comparison import ClaimResults, judge_claims
from workbench.errors import UserError
from workbench.html_text import shorten, visible
from workbench.report import ledger_grid as ledger
from workbench.report.attribution_section import cut_cards, drawable, with_labels
from workbench.runs import read_table, salvage_run_file
from workbench.schema import (
    AttributionFile,
    AttributionRow,
    CandidateEntry,
    CardsFile,
    ComparisonFile,
    DirectionFile,
    EvaluationRow,
    FrontierFile,
    HistoryRow,
    LabelEntry,
    LabelsFile,
    LatentsFile,
    OffTargetRow,
    QuestionRow,
    RunFile,
    RunManifest,
)

#: Files of a run directory, with what the report cannot show if one is missing.
FILES = {
    "comparison.json": "the comparison with other ways to steer the model",
    "search/frontier.json": "the prompts that the search found",
    "search/history.parquet": "how the search went on",
    "attribution.parquet": "the token by token explanation",
    "attribution.json": "the summary of the token by token explanation",
    "direction.json": "the direction inside the model and how it was chosen",
    "latents.json": "the latents of the sparse autoencoder",
    "cards.json": "what each latent fires on",
    "evaluation.parquet": "the answer to each single question",
    "off_target.parquet": "what the prompts do to questions that they should leave alone",
    "questions.parquet": "the texts of the questions",
    "manifest.json": "versions, seeds and timings",
    "study.yaml": "what was asked",
}
#: Files that most runs do not have; there is no note if they are missing.
OPTIONAL = {"labels.json": "what users call the latents"}
MAX_BYTES = 64_000_000
MAX_TEXT = 1_200
MAX_CANDIDATES = 400
MAX_LATENTS = 400
T = TypeVar("T")
FileKind = TypeVar("FileKind", bound=RunFile)


@dataclass
class RunContents:
    """Contents of a run directory for the report; a part is None if its file is missing or invalid.

    Attributes:
        comparison: Comparison of all conditions on test questions (comparison.json).
        frontier: Prompts that the searches found (search/frontier.json).
        history: Best objective of each search as [model calls, objective] points.
        ledger: Effects of prompt tokens, as `ledger_grid.view` returns them.
        direction: The persona's direction and the scan over layers (direction.json).
        latents: The ranked SAE latents (latents.json).
        attribution: Contents of attribution.json, without parts that are too large for a page.
        cards: Descriptions of single latents (cards.json).
        evaluation: Log-odds of every test question under every condition (evaluation.parquet).
        off_target: Side effects of every condition by question (off_target.parquet).
        questions: Texts of the questions (questions.parquet).
        manifest: Versions, hashes and notes of the run (manifest.json).
        study: Text of study.yaml.
        labels: Users' labels of latents, by the latent's index.
        missing: One line for each part that is missing, broken or cut.
    """

    comparison: ComparisonFile | None = None
    frontier: FrontierFile | None = None
    history: dict[str, list[list[float]]] | None = None
    ledger: dict[str, Any] | None = None
    direction: DirectionFile | None = None
    latents: LatentsFile | None = None
    attribution: AttributionFile = field(default_factory=lambda: AttributionFile())
    cards: CardsFile | None = None
    evaluation: pd.DataFrame | None = None
    off_target: pd.DataFrame | None = None
    questions: pd.DataFrame | None = None
    manifest: RunManifest | None = None
    study: str | None = None
    labels: dict[int, LabelEntry] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @cached_property
    def claims(self) -> ClaimResults | None:
        """Results of the statistical claims about the chosen prompt; None without a comparison.

        The first claim is that the prompt works: more than no prompt and than random or neutral text.
        """
        return (
            None
            if self.comparison is None
            else judge_claims(self.comparison, self.evaluation, self.off_target)
        )


def readable_run(directory: Path) -> RunContents:
    """Read a run directory that has at least one file to show.

    Args:
        directory: The run directory.

    Raises:
        UserError: No file of a run is there, or none of them can be read.
    """
    contents = load_run(directory)
    parts = ("comparison", "frontier", "ledger", "direction", "latents", "manifest")
    if all(getattr(contents, name) is None for name in parts):
        raise UserError(f"{directory} holds no file of a run that could be read: {contents.missing[0]}")
    return contents


def load_run(directory: Path) -> RunContents:
    """Read everything in a run directory that the report shows.

    Broken files never raise an error; they are listed in `missing`.

    Args:
        directory: The run directory.
    """
    found = RunContents()
    lost = found.missing
    reader = _Reader(directory, lost)
    found.comparison = reader.file("comparison.json", ComparisonFile)
    found.frontier = _cut_frontier(reader.file("search/frontier.json", FrontierFile), lost)
    found.history = reader.read("search/history.parquet", lambda path: _history(read_table(path, HistoryRow)))
    found.direction = reader.file("direction.json", DirectionFile)
    found.latents = _cut_latents(reader.file("latents.json", LatentsFile), lost)
    cards = reader.file("cards.json", CardsFile)
    found.cards = None if cards is None else cut_cards(cards, lost)
    summary = reader.file("attribution.json", AttributionFile)
    found.ledger = reader.read(
        "attribution.parquet", lambda path: ledger.view(read_table(path, AttributionRow), summary, lost)
    )
    found.attribution = drawable(summary, lost)
    found.evaluation = reader.read(
        "evaluation.parquet", lambda path: _numbers(read_table(path, EvaluationRow), "log_odds")
    )
    found.off_target = reader.read(
        "off_target.parquet", lambda path: _numbers(read_table(path, OffTargetRow), "value")
    )
    found.questions = reader.read("questions.parquet", lambda path: read_table(path, QuestionRow))
    found.manifest = reader.file("manifest.json", RunManifest)
    found.study = reader.read("study.yaml", lambda path: _study(path))
    named = reader.file("labels.json", LabelsFile)
    found.labels = {entry.latent: entry for entry in (named.labels if named else []) if entry.label}
    found.attribution = with_labels(
        found.attribution, {latent: entry.label for latent, entry in found.labels.items()}
    )
    return found


def clean(value: Any) -> Any:
    """Convert any value to one that can be put into the report's page as JSON.

    Texts are shortened and their invisible characters made visible. Numbers that are not finite become None.
    Keys become strings.

    Args:
        value: The value, also nested.
    """
    if isinstance(value, str):
        return shorten(visible(value, spaces=False), MAX_TEXT)
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(str(key)): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    return clean(str(value))


class _Reader:
    """Reader of the files in one directory that turns every failure into a line of text."""

    def __init__(self, directory: Path, missing: list[str]) -> None:
        self.directory, self.missing = directory, missing

    def file(self, name: str, kind: type[FileKind]) -> FileKind | None:
        """Read a file into its model; an invalid field that may be missing is left out with a note."""
        found = self.read(name, lambda path: salvage_run_file(path, kind, MAX_BYTES))
        if found is None:
            return None
        for part, reason in found[1].items():
            words = part.replace("_", " ")
            self.missing.append(
                f"{name}: {words} could not be read, so this page does not show it ({shorten(visible(reason, spaces=False), 200)})."
            )
        return found[0]

    def read(self, name: str, read: Callable[[Path], T]) -> T | None:
        path = self.directory / name
        loss = FILES.get(name) or OPTIONAL[name]
        if not path.is_file():
            if name in OPTIONAL:
                return None
            self.missing.append(f"{name} is not there: this page cannot show {loss}.")
            return None
        if path.stat().st_size > MAX_BYTES:
            self.missing.append(
                f"{name} is larger than {MAX_BYTES // 1_000_000} MB: this page does not show {loss}."
            )
            return None
        try:
            return read(path)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            reason = f"{where}: {first['msg']}" if where else first["msg"]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            pyarrow.ArrowException,
            yaml.YAMLError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.missing.append(
            f"{name} could not be read, so this page cannot show {loss} ({shorten(visible(reason, spaces=False), 200)})."
        )
        return None


def _study(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    yaml.safe_load(text)
    return shorten(text, 32_000)


def _cut_frontier(found: FrontierFile | None, missing: list[str]) -> FrontierFile | None:
    if found is None:
        return None
    searches = {}
    for name, search in found.searches.items():
        kept = _spread(search.candidates, MAX_CANDIDATES)
        if len(kept) < len(search.candidates):
            missing.append(
                f"Of the {len(search.candidates):,} prompts on the frontier of {name}, {len(kept):,} are shown."
            )
        searches[name] = search.model_copy(update={"candidates": kept})
    return found.model_copy(update={"searches": searches})


def _spread(candidates: list[CandidateEntry], limit: int) -> list[CandidateEntry]:
    """Pick at most `limit` candidates, evenly over cross-entropy; chosen candidates are always kept."""
    ordered = sorted(candidates, key=lambda c: c.fluency)
    if len(ordered) <= limit:
        return ordered
    step = len(ordered) / limit
    picked = {int(i * step) for i in range(limit)}
    return [c for i, c in enumerate(ordered) if i in picked or c.chosen]


def _cut_latents(found: LatentsFile | None, missing: list[str]) -> LatentsFile | None:
    if found is None or len(found.latents) <= MAX_LATENTS:
        return found
    kept = sorted(found.latents, key=lambda row: -abs(row.weight or 0.0))[:MAX_LATENTS]
    missing.append(
        f"Of {len(found.latents):,} latents, the {MAX_LATENTS} with the largest weights are shown."
    )
    return found.model_copy(update={"latents": kept})


def _history(frame: pd.DataFrame) -> dict[str, list[list[float]]]:
    """Return for each search the points [model calls, best objective] in order, about 200 at most."""
    lines = {}
    for name, part in frame.groupby("search", sort=False):
        points = part[["model_calls", "best_objective"]].dropna()
        step = max(1, len(points) // 200)
        kept = pd.concat([points.iloc[::step], points.iloc[-1:]])
        lines[str(name)] = kept.astype(float).to_numpy().tolist()
    return lines


def _numbers(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the table with one column converted to floats."""
    return frame.assign(**{column: frame[column].astype(float)})
