"""Models of search/NAME.json, search/frontier.json and their tables: each search's prompts and history."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.comparison_file import CostEntry
from workbench.schema.run_file import Entry, Number, RunFile, TableRow


class CandidateEntry(Entry):
    """A prompt that a search returned.

    Attributes:
        ids: Token ids.
        text: The prompt.
        objective: Value of the objective that the search maximises.
        fluency: Mean cross-entropy, nats per token (lower is more fluent).
        selection_rate: Rate of matching answers (those that show the persona) on the selection split.
        selection_log_odds: Mean log-odds of the matching answer on the selection split, nats.
        chosen: Whether the prompt was chosen on the selection split.
    """

    ids: list[int] = Field(default_factory=list)
    text: str
    objective: float
    fluency: float
    selection_rate: Number = None
    selection_log_odds: Number = None
    chosen: bool = False


class SearchFile(RunFile):
    """The file search/NAME.json: result of one search.

    Attributes:
        method: Name of the method.
        slot: Place in the chat where the prompts were put.
        metric: How questions are answered: by option letter (`letters`) or by the answer's text (`text`).
        seed: Seed of the search.
        sign: -1 if a higher objective means less of the persona, else +1.
        interrupted: Whether the user ended the search.
        objective: Description of the objective that was maximised: {"type": name of its class, **fields}; a
            text in runs made before 0.1.
        warnings: Warnings, one line each.
        candidates: The prompts that were found, the most fluent first.
        cost: Cost of the search.
    """

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
    """The file search/frontier.json: the prompts found by each search, with rates on selection questions."""

    searches: dict[str, SearchFile]


class SearchStepRow(TableRow):
    """One row of search/NAME.parquet: the state of a search after one step.

    Attributes:
        step: Number of steps done.
        model_calls: Model calls spent so far.
        forward: Token-layers run forward so far.
        backward: Token-layers run backward so far.
        flops: Floating point operations so far.
        candidates: Number of candidate prompts scored so far.
        best_objective: Objective of the strongest prompt found so far.
        best_cross_entropy: Cross-entropy of that prompt, nats per token.
        population: Number of different prompts from which the next step makes candidates.
        frontier: Number of prompts on the frontier (those that no other one beats in objective and fluency).
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
    """One row of search/history.parquet: the state of the search named `search` after one step."""

    search: str
