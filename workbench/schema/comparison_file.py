"""Models of comparison.json (figures of all conditions) and of the tables of single answers."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from workbench.schema.run_file import Ends, Entry, Number, RunFile, TableRow


class AnswerBiasEntry(Entry):
    """How much of an effect is a preference for one of two answers, whatever the question.

    Attributes:
        answer: The answer that a positive bias favours.
        other: The other answer.
        n: Number of questions in which `answer` shows the persona.
        n_other: Number of questions in which `other` does.
        bias: Change of the log-odds of `answer` that does not depend on which answer shows the persona, nats.
        bias_ci: Interval of `bias`.
        balanced: Effect in log-odds with both answers weighted equally, nats.
        balanced_ci: Interval of `balanced`.
    """

    answer: str
    other: str
    n: int
    n_other: int
    bias: Number = None
    bias_ci: Ends = (None, None)
    balanced: Number = None
    balanced_ci: Ends = (None, None)


class DifferenceEntry(Entry):
    """A paired difference of one condition to another; positive means more of the persona.

    Attributes:
        to: Name of the other condition.
        value: Difference of the rates of matching answers (the answers that show the persona).
        ci: Interval of `value`.
        p: p-value of `value`.
        p_adjusted: That p-value after correction for several tests.
        log_odds: Difference of the mean log-odds, nats.
        log_odds_ci: Interval of `log_odds`.
        log_odds_p: p-value of `log_odds`.
        log_odds_p_adjusted: That p-value after correction for several tests.
        detectable_log_odds: Minimum detectable effect, nats.
        answer_bias: The part of it that is a preference for one answer; null unless two answers take turns as
            the one that shows the persona, and in differences to other conditions than the baseline.
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
    answer_bias: AnswerBiasEntry | None = None

    @property
    def corrected_p(self) -> float | None:
        """P-value of the difference in log-odds after correction for several tests.

        It is that of the difference in rates if the log-odds have none.
        """
        return self.log_odds_p_adjusted if self.log_odds_p_adjusted is not None else self.p_adjusted


class CostEntry(Entry):
    """Cost of a search, or of finding a condition's prompt.

    Attributes:
        token_layers: Tokens times blocks, forward and backward together.
        token_layers_backward: The backward part of `token_layers`.
        flops: Floating point operations.
        model_calls: `token_layers` divided by those of one pass over one question with its prompt.
        seconds: null, because times are in timings.json; in older runs the wall-clock seconds.
        token_layers_repeated: Token-layers that a resumed search ran a second time, which `token_layers` does
            not contain.
    """

    token_layers: Number = None
    token_layers_backward: Number = 0.0
    flops: Number = None
    model_calls: Number = None
    seconds: Number = None
    token_layers_repeated: Number = 0.0


class ConditionEntry(Entry):
    """All figures of one condition (a prompt, no prompt, steering or a control) on the test questions.

    Attributes:
        name: Name of the condition.
        kind: Kind of the condition, such as "none", "manual" or "resga".
        method: Search method that found the prompt.
        prompt: Text of the prompt; null without one.
        rate: Fraction of test questions with the matching answer (the one that shows the persona).
        ci: Interval of `rate`.
        probability: Mean probability of the matching answer.
        probability_ci: Interval of `probability`.
        log_odds: Mean log-odds of the matching answer, nats.
        log_odds_ci: Interval of `log_odds`.
        letter_a_share: Fraction of contexts in which the first option is chosen; null for text answers.
        orders_agree: Fraction of items answered alike in both option orders.
        neutral_p: P-value of a test that `rate` is close to 0.5 (equivalence test).
        n: Number of answers.
        groups: Number of question groups.
        fluency: Cross-entropy of the prompt, nats per token (lower is more fluent).
        prompt_tokens: Length of the prompt in tokens.
        judge_cross_entropy: Cross-entropy of the prompt under the second model, nats per token.
        search_rate: Rate on the questions that the search used.
        selection_rate: Rate on the questions on which the prompt was chosen.
        differences: Paired differences to other conditions.
        collateral: Measures of side effects, by name.
        cost: Cost of finding the prompt.
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
        """Return this condition's difference to another condition; None if it was not computed."""
        return next((d for d in self.differences if d.to == to), None)


class SplitEntry(Entry):
    """Size of one split of the questions (train, search, selection or test).

    Attributes:
        n: Number of questions.
        groups: Number of question groups; questions of one group are always in the same split.
        hash: Hash of the questions.
    """

    n: int | None = None
    groups: int | None = None
    hash: str | None = None


class ComparisonFile(RunFile):
    """The file comparison.json: figures of all conditions on one split.

    Attributes:
        persona: Name of the persona.
        model: Name of the model.
        sign: -1 if less of the persona is the aim, +1 if more.
        metric: How questions are answered: by option letter (`letters`) or by the answer's text (`text`).
        slot: Place in the chat where prompts were put, such as `system`.
        seed: Seed of the study.
        split: The split whose questions were asked.
        splits: All splits of the study.
        baseline: Name of the condition without a prompt.
        neutral: Name of the condition that is the mean over neutral sentences (prompts without a topic);
            every other condition has its difference to it.
        judge: Name of a second model, under which the prompts' cross-entropy was measured.
        primary: Names of the conditions whose p-values are corrected together.
        warnings: Warnings, one line each.
        conditions: Figures of each condition.
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
        """Aim of the study: -1 for less of the persona, +1 for more."""
        if isinstance(self.sign, str):
            return 1 if self.sign.strip().lower() in {"+", "+1", "1", "plus", "induce", "more"} else -1
        return 1 if self.sign > 0 else -1


class OffTargetRow(TableRow):
    """One row of off_target.parquet: one answer of one condition to an off-target question.

    Off-target questions have nothing to do with the persona.

    Attributes:
        condition: Name of the condition.
        measure: Name of the off-target measure, as in comparison.json's `collateral`.
        part: "true statements", "other personas" or "capability".
        item: Id of the question or text.
        group: Its question group.
        value: Log-odds (nats) of the right answer, or of the answer that shows the other persona; for an
            unrelated text its cross-entropy, nats per token.
        hit: Whether that answer was given; None for a text.
    """

    condition: str
    measure: str
    part: str
    item: str
    group: str
    value: Number
    hit: bool | None = None


class QuestionRow(TableRow):
    """One row of questions.parquet: the text of a question.

    Attributes:
        measure: Measure of side effects that uses the question; "" for the test questions.
        item: Id of the question.
        group: Its question group.
        question: Text of the question.
        matching: The answer that shows the persona (for a true statement, the right one).
        not_matching: The other answer.
    """

    measure: str = ""
    item: str
    group: str = ""
    question: str
    matching: str = ""
    not_matching: str = ""


class EvaluationRow(TableRow):
    """One row of evaluation.parquet: one answer of one condition to a test question.

    Attributes:
        condition: Name of the condition.
        kind: Kind of the condition, such as "none", "manual" or "resga".
        item: Id of the question.
        group: Its question group.
        matching_first: Whether the matching answer (the one that shows the persona) was shown first.
        log_odds: Log-probability of the matching answer minus that of the other, nats.
        p: Probability of the matching answer.
        hit: Whether the matching answer was given.
    """

    condition: str
    kind: str = ""
    item: str = ""
    group: str = ""
    matching_first: bool | None = None
    log_odds: Number
    p: Number = None
    hit: bool | None = None
