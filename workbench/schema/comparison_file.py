"""comparison.json and evaluation.parquet: conditions by their figures on the test questions, and every single answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.run_file import Ends, Entry, Number, RunFile, TableRow


class DifferenceEntry(Entry):
    """A paired difference to another condition.

    value: of rates; log_odds: of mean log-odds, nats; plus is more of the persona. detectable_log_odds: the
    minimum detectable effect.
    """

    to: str
    value: Number = None
    ci: Ends = (None, None)
    p: Number = None
    p_adjusted: Number = None
    log_odds: Number = None
    log_odds_ci: Ends = (None, None)
    log_odds_p: Number = None
    log_odds_p_adjusted: Number = None
    detectable_log_odds: Number = None

    @property
    def corrected_p(self) -> float | None:
        """Of the log-odds, in which effects are judged; of the rates where that is missing."""
        return self.log_odds_p_adjusted if self.log_odds_p_adjusted is not None else self.p_adjusted


class CostEntry(Entry):
    """What something cost.

    token_layers: forward and backward together; token_layers_backward: the backward ones of them;
    token_layers_repeated: what a resumed search ran a second time, not among them; seconds: null, they are in
    timings.json (runs made before have them here).
    """

    token_layers: Number = None
    token_layers_backward: Number = 0.0
    flops: Number = None
    model_calls: Number = None
    seconds: Number = None
    token_layers_repeated: Number = 0.0


class ConditionEntry(Entry):
    """One condition.

    rate: fraction of test questions with the matching answer; fluency: cross-entropy of the prompt, nats per
    token; judge_cross_entropy: the same under the second model; collateral: off-target measures by name.
    """

    name: str
    kind: str
    method: str | None = ""
    prompt: str | None = None
    rate: Number = None
    ci: Ends = (None, None)
    probability: Number = None
    probability_ci: Ends = (None, None)
    log_odds: Number = None
    log_odds_ci: Ends = (None, None)
    letter_a_share: Number = None
    orders_agree: Number = None
    neutral_p: Number = None
    n: int | None = None
    groups: int | None = None
    fluency: Number = None
    prompt_tokens: int | None = None
    judge_cross_entropy: Number = None
    search_rate: Number = None
    selection_rate: Number = None
    differences: list[DifferenceEntry] = Field(default_factory=list)
    collateral: dict[str, Any] | None = None
    cost: CostEntry | None = None

    def difference(self, to: str = "no prompt") -> DifferenceEntry | None:
        """The difference to another condition, None when it was not computed."""
        return next((d for d in self.differences if d.to == to), None)


class SplitEntry(Entry):
    """Size of one split, and the hash of its questions."""

    n: int | None = None
    groups: int | None = None
    hash: str | None = None


class ComparisonFile(RunFile):
    """comparison.json.

    split: the one that was read; splits: all of the study. neutral: name of the mean of the neutral
    sentences, which every condition has a difference to. judge: a second model, which judged the prompts'
    cross-entropy.
    """

    persona: str
    model: str
    sign: float | str
    metric: str
    slot: str = ""
    seed: int | None = Field(ge=0, lt=1 << 63)
    split: str = "test"
    splits: dict[str, SplitEntry]
    baseline: str = "no prompt"
    neutral: str | None = None
    judge: str | None = None
    primary: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    conditions: list[ConditionEntry]

    @property
    def wanted(self) -> int:
        """-1 when less of the persona was wanted, +1 when more."""
        if isinstance(self.sign, str):
            return 1 if self.sign.strip().lower() in {"+", "+1", "1", "plus", "induce", "more"} else -1
        return 1 if self.sign > 0 else -1


class OffTargetRow(TableRow):
    """off_target.parquet: one answer of one condition that the persona has nothing to do with.

    measure: its name in comparison.json's `collateral`; part: "true statements", "other personas" or
    "capability"; value: log-odds of the right (or the other persona's) answer, or nats a token of an
    unrelated text; hit: None for a text.
    """

    condition: str
    measure: str
    part: str
    item: str
    group: str
    value: Number
    hit: bool | None = None


class QuestionRow(TableRow):
    """questions.parquet: the text of a question.

    measure: "" for the test questions, otherwise the off-target measure that asks it; matching: the answer
    that shows the persona (of a true statement: the right one).
    """

    measure: str = ""
    item: str
    group: str = ""
    question: str
    matching: str = ""
    not_matching: str = ""


class EvaluationRow(TableRow):
    """evaluation.parquet: one answer of one condition. log_odds: matching minus not matching answer, nats."""

    condition: str
    kind: str = ""
    item: str = ""
    group: str = ""
    matching_first: bool | None = None
    log_odds: Number
    p: Number = None
    hit: bool | None = None
