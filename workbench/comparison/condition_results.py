"""One condition's results on one split: rates, log-odds, differences to other conditions.

1. The rate of the matching answer (the one that shows the persona) has Wilson's clustered interval; mean
   log-odds and mean probability have t intervals.
2. Differences to the baseline, to the best manual prompt and to the mean of the neutral sentences are paired
   over the same contexts: of the rates (`value`) and of the log-odds. Effects are judged in log-odds, because
   a rate near 0 or 1 can hardly change; the rate's own p is also given.
3. Holm's method corrects over the primary conditions, separately for each condition that they are compared
   with. Other conditions have no corrected p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from workbench.comparison.answer_bias import AnswerBias, answer_bias
from workbench.comparison.off_target import OffTargetAnswers
from workbench.conditions import Condition
from workbench.forced_choice import Answers
from workbench.runs import finite
from workbench.schema import ConditionEntry, CostEntry, DifferenceEntry
from workbench.statistics import (
    EquivalenceTest,
    Interval,
    PairedDifference,
    cluster_interval,
    holm,
    minimum_detectable_effect,
    paired_difference,
    paired_rate_difference,
    rate_interval,
    tost,
)

#: A rate is neutral if it is shown to be within this distance of 0.5.
NEUTRAL = 0.1


@dataclass(frozen=True)
class ConditionDifference:
    """Difference between one condition (a prompt or a control) and another, on the same questions.

    Attributes:
        to: Name of the other condition.
        rate: Difference of the rates of the matching answer (the one that shows the persona), -1 to 1.
        log_odds: Difference of the mean log-odds of that answer, in nats.
        detectable: Minimum detectable difference in log-odds on these questions, at a power of 0.8.
        p_adjusted: P-value of the rate, corrected by Holm's method over the primary conditions; None for
            other conditions.
        log_odds_p_adjusted: P-value of the log-odds, corrected in the same manner.
        answer_bias: The part of the difference that is a preference for one answer; None unless two answers
            take turns as the matching one, and in differences to other conditions than the baseline.
    """

    to: str
    rate: PairedDifference
    log_odds: PairedDifference
    detectable: float
    p_adjusted: float | None = None
    log_odds_p_adjusted: float | None = None
    answer_bias: AnswerBias | None = None

    def to_entry(self) -> DifferenceEntry:
        """Convert the difference to an entry of `differences` in comparison.json."""
        return DifferenceEntry(
            to=self.to,
            value=self.rate.value,
            ci=self.rate.interval.ends(),
            p=self.rate.p,
            p_adjusted=self.p_adjusted,
            log_odds=self.log_odds.value,
            log_odds_ci=self.log_odds.interval.ends(),
            log_odds_p=self.log_odds.p,
            log_odds_p_adjusted=self.log_odds_p_adjusted,
            detectable_log_odds=self.detectable,
            answer_bias=None if self.answer_bias is None else self.answer_bias.to_entry(),
        )


@dataclass(frozen=True)
class ConditionResult:
    """All results of one condition: a prompt, steering or a control.

    Attributes:
        condition: The condition.
        answers: Log-odds of its answers to all questions, in each option order.
        rate: Rate of the matching answer (the one that shows the persona).
        probability: Mean probability of the matching answer.
        log_odds: Mean log-odds of the matching answer, in nats.
        letter_a_share: Fraction of contexts in which the option shown first is chosen; None with text
            answers.
        orders_agree: Fraction of items with the same answer in both option orders; None without both orders.
        neutral: Test of whether the rate is between 0.4 and 0.6, so that the model prefers neither answer.
        cross_entropy: Cross-entropy of the prompt, nats per token; None without a prompt.
        prompt_tokens: Length of the prompt in tokens; None without a prompt.
        judge_cross_entropy: Cross-entropy of the prompt under a second model (`judged`), nats per token.
        differences: Differences to other conditions.
        collateral: Side effects: one figure for each off-target measure, by name.
        off_target: Answers to the single questions of the off-target measures, by name, where available.
    """

    condition: Condition
    answers: Answers
    rate: Interval
    probability: Interval
    log_odds: Interval
    letter_a_share: float | None
    orders_agree: float | None
    neutral: EquivalenceTest
    cross_entropy: float | None = None
    prompt_tokens: int | None = None
    judge_cross_entropy: float | None = None
    differences: tuple[ConditionDifference, ...] = ()
    collateral: Mapping[str, float] = field(default_factory=dict)
    off_target: Mapping[str, OffTargetAnswers] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the condition."""
        return self.condition.name

    def difference(self, to: str) -> ConditionDifference | None:
        """Return this condition's difference to the one with the name `to`; None if it was not computed."""
        return next((d for d in self.differences if d.to == to), None)

    def to_entry(self) -> ConditionEntry:
        """Convert the result to an entry of `conditions` in comparison.json."""
        condition = self.condition
        return ConditionEntry(
            name=condition.name,
            kind=condition.kind,
            method=condition.method,
            prompt=condition.prompt,
            rate=self.rate.estimate,
            ci=self.rate.ends(),
            probability=self.probability.estimate,
            probability_ci=self.probability.ends(),
            log_odds=self.log_odds.estimate,
            log_odds_ci=self.log_odds.ends(),
            letter_a_share=self.letter_a_share,
            orders_agree=self.orders_agree,
            neutral_p=self.neutral.p,
            n=self.rate.n,
            groups=self.rate.groups,
            fluency=self.cross_entropy,
            prompt_tokens=self.prompt_tokens,
            judge_cross_entropy=self.judge_cross_entropy,
            search_rate=condition.search_rate,
            selection_rate=condition.selection_rate,
            differences=[difference.to_entry() for difference in self.differences],
            collateral=finite(dict(self.collateral)),
            cost=CostEntry(**condition.cost.to_json() | {"seconds": None}),
        )


def make_entry(condition: Condition, answers: Answers, letters: bool, level: float = 0.95) -> ConditionResult:
    """Compute a condition's rate, mean log-odds and other results from its answers.

    Differences to other conditions are added by `with_differences`.

    Args:
        condition: The condition.
        answers: Its answers to all questions.
        letters: Whether answers are option letters. If so, the fraction that choose the option shown first is
            computed.
        level: Coverage of the intervals.
    """
    hits, groups = answers.chose_matching, answers.group
    return ConditionResult(
        condition,
        answers,
        rate_interval(hits, groups, level),
        cluster_interval(answers.p, groups, level),
        cluster_interval(answers.log_odds, groups, level),
        answers.letter_a_share if letters else None,
        orders_agree(answers),
        tost(hits, groups, 0.5 - NEUTRAL, 0.5 + NEUTRAL),
    )


def with_differences(
    entries: Sequence[ConditionResult], others: Sequence[str], level: float, seed: int
) -> list[ConditionResult]:
    """Add to each condition's results its differences to certain conditions, such as no prompt.

    Args:
        entries: The results of all conditions.
        others: Names of the conditions to compare with. The first one also gets a difference to itself, which
            is zero.
        level: Coverage of the intervals.
        seed: Seed of the permutation tests.
    """
    known = {entry.name: entry for entry in entries}
    return [
        replace(
            e,
            differences=tuple(
                _difference(e, known[o], level, seed) for o in others if o != e.name or o == others[0]
            ),
        )
        for e in entries
    ]


def with_answer_bias(
    entries: Sequence[ConditionResult], baseline: str, matching: Mapping[str, str], level: float
) -> list[ConditionResult]:
    """Add to the differences to the baseline how much of them is a preference for one answer.

    Args:
        entries: The results with their differences.
        baseline: Name of the condition without a prompt.
        matching: Text of the matching answer (the one that shows the persona) of each question, by its id.
        level: Coverage of the intervals.
    """
    bare = next(entry for entry in entries if entry.name == baseline).answers

    def measured(entry: ConditionResult, difference: ConditionDifference) -> ConditionDifference:
        if difference.to != baseline or entry.name == baseline:
            return difference
        found = entry.answers
        texts = [matching[item] for item in found.item_id]
        return replace(
            difference, answer_bias=answer_bias(found.log_odds - bare.log_odds, texts, found.group, level)
        )

    return [replace(e, differences=tuple(measured(e, d) for d in e.differences)) for e in entries]


def with_holm(entries: Sequence[ConditionResult], primary: Sequence[str]) -> list[ConditionResult]:
    """Add p-values that are corrected by Holm's method to the differences between conditions.

    The p-values of the primary conditions are corrected together, separately for each condition that they are
    compared with.

    Args:
        entries: The results with their differences.
        primary: Names of the primary conditions (those that the study is about, not controls).
    """
    adjusted: dict[tuple[str, str], tuple[float, float]] = {}
    for to in {d.to for e in entries for d in e.differences}:
        family = [
            (e.name, d) for e in entries if e.name in primary and e.name != to and (d := e.difference(to))
        ]
        rates, shifts = holm([d.rate.p for _, d in family]), holm([d.log_odds.p for _, d in family])
        adjusted.update(
            {
                (name, to): pair
                for (name, _), pair in zip(family, zip(rates, shifts, strict=True), strict=True)
            }
        )
    return [
        replace(e, differences=tuple(_adjust(d, adjusted.get((e.name, d.to))) for d in e.differences))
        for e in entries
    ]


def orders_agree(answers: Answers) -> float | None:
    """Return the fraction of questions with the same answer in both option orders; None if none has both."""
    chosen: dict[str, dict[bool, bool]] = {}
    for item, first, hit in zip(answers.item_id, answers.matching_first, answers.chose_matching, strict=True):
        chosen.setdefault(item, {})[bool(first)] = bool(hit)
    both = [orders[True] == orders[False] for orders in chosen.values() if len(orders) == 2]
    return sum(both) / len(both) if both else None


def _difference(
    entry: ConditionResult, other: ConditionResult, level: float, seed: int
) -> ConditionDifference:
    a, b, groups = entry.answers, other.answers, entry.answers.group
    if entry.name == other.name:
        return _no_difference(entry)
    rate = paired_rate_difference(a.chose_matching, b.chose_matching, groups, level, seed)
    log_odds = paired_difference(a.log_odds, b.log_odds, groups, level, seed)
    return ConditionDifference(
        other.name, rate, log_odds, minimum_detectable_effect(a.log_odds - b.log_odds, groups)
    )


def _no_difference(entry: ConditionResult) -> ConditionDifference:
    """Return the difference of a condition to itself, which is zero without a test."""
    nothing = Interval(0.0, 0.0, 0.0, entry.rate.n, entry.rate.groups, "the same condition")
    same = PairedDifference(0.0, nothing, 1.0, 1.0, True)
    return ConditionDifference(entry.name, same, same, 0.0)


def _adjust(difference: ConditionDifference, pair: tuple[float, float] | None) -> ConditionDifference:
    return (
        difference if pair is None else replace(difference, p_adjusted=pair[0], log_odds_p_adjusted=pair[1])
    )
