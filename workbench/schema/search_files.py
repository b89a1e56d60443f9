"""search/NAME.json, search/frontier.json and their tables: the prompts of each search, and how it got there."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.comparison_file import CostEntry
from workbench.schema.run_file import Entry, Number, RunFile, TableRow


class CandidateEntry(Entry):
    """A prompt that the search kept. objective: as maximised; fluency: its mean cross-entropy, nats per token (lower is more fluent)."""

    ids: list[int] = Field(default_factory=list)
    text: str
    objective: float
    fluency: float
    selection_rate: Number = None
    selection_log_odds: Number = None
    chosen: bool = False


class SearchFile(RunFile):
    """search/NAME.json. objective: {"type": its class, **fields}, a text in runs made before 0.1. warnings: one line each."""

    method: str = ""
    slot: str = ""
    metric: str = ""
    seed: int | None = Field(default=None, ge=0, lt=1 << 63)
    sign: int = -1
    interrupted: bool = False
    objective: dict[str, Any] | str | None = None
    warnings: list[str] = Field(default_factory=list)
    candidates: list[CandidateEntry]
    cost: CostEntry | None = None


class FrontierFile(RunFile):
    """search/frontier.json: every search with its candidates measured on the selection split."""

    searches: dict[str, SearchFile]


class SearchStepRow(TableRow):
    """search/NAME.parquet: one step.

    model_calls, forward, backward, flops, candidates: spent until then; best_*: of the archive's strongest
    prompt.
    """

    step: int = 0
    model_calls: Number
    forward: Number = None
    backward: Number = None
    flops: Number = None
    candidates: int = 0
    best_objective: Number
    best_cross_entropy: Number = None
    population: int = 0
    frontier: int = 0


class HistoryRow(SearchStepRow):
    """search/history.parquet: a step of the search of that name."""

    search: str
