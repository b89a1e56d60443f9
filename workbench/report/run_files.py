"""The shapes of a run directory's files as the report needs them: lenient about what is extra, strict about what it draws.

The contract of comparison.json stands in the project's design; an older or hand-edited file may lack what has a default.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from workbench.report.objective_words import objective_words


def _finite(value: Any) -> Any:
    """NaN and infinities, which JSON cannot say, are missing values."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Interval = tuple[Number, Number]


class Part(BaseModel):
    """Unknown keys are passed over: a newer file still shows what this version knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Difference(Part):
    """A paired difference to another condition. value: of rates; log_odds: of mean log-odds; plus is more of the persona."""

    to: str
    value: Number = None
    ci: Interval = (None, None)
    p: Number = None
    p_adjusted: Number = None
    log_odds: Number = None
    log_odds_ci: Interval = (None, None)
    log_odds_p: Number = None
    log_odds_p_adjusted: Number = None
    detectable_log_odds: Number = None

    @property
    def corrected_p(self) -> float | None:
        """Of the log-odds, in which effects are judged; of the rates where that is missing."""
        return self.log_odds_p_adjusted if self.log_odds_p_adjusted is not None else self.p_adjusted


class Condition(Part):
    """One thing that was compared."""

    name: str
    kind: str
    method: str | None = ""
    prompt: str | None = None
    rate: Number = None
    ci: Interval = (None, None)
    log_odds: Number = None
    log_odds_ci: Interval = (None, None)
    letter_a_share: Number = None
    n: int | None = None
    groups: int | None = None
    fluency: Number = None
    selection_rate: Number = None
    differences: list[Difference] = Field(default_factory=list)
    collateral: dict[str, Any] | None = None
    cost: dict[str, Number] | None = None

    def difference(self, to: str = "no prompt") -> Difference | None:
        """The difference to another condition, None when it was not computed."""
        return next((d for d in self.differences if d.to == to), None)


class SplitFacts(Part):
    """Size of one split."""

    n: int | None = None
    groups: int | None = None
    hash: str | None = None


class Comparison(Part):
    """comparison.json."""

    persona: str = "the persona"
    model: str = "the model"
    sign: float | str = -1
    metric: str = "letters"
    seed: int | None = None
    slot: str = ""
    baseline: str = "no prompt"
    warnings: list[str] = Field(default_factory=list)
    splits: dict[str, SplitFacts] = Field(default_factory=dict)
    conditions: list[Condition]

    @property
    def wanted(self) -> int:
        """-1 when less of the persona was wanted, +1 when more."""
        if isinstance(self.sign, str):
            return 1 if self.sign.strip().lower() in {"+", "+1", "1", "plus", "induce", "more"} else -1
        return 1 if self.sign > 0 else -1


class Candidate(Part):
    """A prompt that the search kept. objective: as maximised; fluency: mean cross-entropy in nats, lower is more fluent."""

    text: str
    objective: float
    fluency: float
    search_rate: Number = None
    selection_rate: Number = None
    chosen: bool = False


class Search(Part):
    """One search."""

    method: str = ""
    objective: Annotated[str, BeforeValidator(objective_words)] = ""
    slot: str = ""
    seed: int | None = None
    candidates: list[Candidate]
    cost: dict[str, Number] | None = None


class Frontier(Part):
    """search/frontier.json."""

    searches: dict[str, Search]


class Layer(Part):
    """One row of the layer sweep."""

    layer: int
    method: str = ""
    auc: Number = None
    predicts: Number = None


class Direction(Part):
    """direction.json."""

    site: str = ""
    method: str = ""
    norm: Number = None
    auc: Number = None
    predicts: Number = None
    table: list[Layer] = Field(default_factory=list)


class Latent(Part):
    """One row of latents.json."""

    latent: int
    weight: Number = None
    auc: Number = None
    effect_size: Number = None
    density: Number = None
    label: str | None = ""
    max_activation: Number = None
    top: list[tuple[Number, str]] = Field(default_factory=list)


class Latents(Part):
    """latents.json."""

    site: str = ""
    sae: str = ""
    latents: list[Latent]


class Target(Part):
    """One column of the ledger."""

    name: str
    kind: str = "latent"


class Attribution(Part):
    """attribution.json: what the ledger's long table does not say."""

    search: str = ""
    prompt: str | None = None
    tokens: list[str] | None = None
    n_contexts: int | None = None
    targets: list[Target] = Field(default_factory=list)
    estimators: list[str] = Field(default_factory=list)
    rank_correlation: dict[str, dict[str, Number]] = Field(default_factory=dict)
    totals: list[dict[str, Any]] = Field(default_factory=list)
    pairs: list[dict[str, Any]] = Field(default_factory=list)
    mediation: list[dict[str, Any]] = Field(default_factory=list)
    nodes: list[dict[str, Any]] = Field(default_factory=list)
    nodes_agreement: Number = None
    circuit: Any = None
    dose: Any = None
    side_effects: Any = None
    notes: list[str] = Field(default_factory=list)


def mapping(value: Any) -> dict[str, Any]:
    """The value itself if it is a JSON object. ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value
