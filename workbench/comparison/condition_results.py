"""One condition's figures on one split: rates, log-odds, differences to other conditions, and the values of comparison.json.

1. Rate of the matching answer with Wilson's clustered interval; mean log-odds and mean probability with t
   intervals.
2. Difference to the baseline, to the best manual prompt and to the mean of the neutral sentences, paired over
   the same contexts: of the rates (`value`) and of the log-odds. Effects are judged in log-odds, because a
   rate of 0.9 has no room above; the rate's own p is given next to it.
3. Holm's correction runs over the conditions named primary, over their differences to the same condition;
   others have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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

#: A rate is called neutral where it is shown to be this close to 0.5.
NEUTRAL = 0.1


@dataclass(frozen=True)
class ConditionDifference:
    """A condition minus the condition called `to`, on the same contexts.

    rate: -1 to 1; log_odds: nats. p_adjusted, log_odds_p_adjusted: Holm over the primary conditions, None for
    a condition that is not one of them. detectable: the smallest true effect in log-odds that these contexts
    would have shown four times in five.
    """

    to: str
    rate: PairedDifference
    log_odds: PairedDifference
    detectable: float
    p_adjusted: float | None = None
    log_odds_p_adjusted: float | None = None

    def to_entry(self) -> DifferenceEntry:
        """One entry of comparison.json's `differences`."""
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
        )


@dataclass(frozen=True)
class ConditionResult:
    """All figures of one condition.

    letter_a_share: fraction of contexts in which the option shown first is chosen, None with text answers.
    orders_agree: fraction of items that are answered alike in both option orders, None without both orders.
    neutral: is the rate shown to be 0.5 within 0.1? cross_entropy: nats per token, None without a prompt;
    judge_cross_entropy: the same under a second model (`judged`).
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
        """The condition's name."""
        return self.condition.name

    def difference(self, to: str) -> ConditionDifference | None:
        """The difference to the condition of that name, where there is one."""
        return next((d for d in self.differences if d.to == to), None)

    def to_entry(self) -> ConditionEntry:
        """One entry of comparison.json's `conditions`."""
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
    """A condition's own figures from its answers; differences are added by `with_differences`."""
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
    """Every entry with its differences to the entries of the names `others` (the first of them: also to itself, zero)."""
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


def with_holm(entries: Sequence[ConditionResult], primary: Sequence[str]) -> list[ConditionResult]:
    """Entries with p corrected by Holm's method over the primary ones, for each condition that is compared with."""
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
    """Fraction of items whose two option orders give the same answer; None where no item was asked in both."""
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
    """A condition against itself: zero, known without a test."""
    nothing = Interval(0.0, 0.0, 0.0, entry.rate.n, entry.rate.groups, "the same condition")
    same = PairedDifference(0.0, nothing, 1.0, 1.0, True)
    return ConditionDifference(entry.name, same, same, 0.0)


def _adjust(difference: ConditionDifference, pair: tuple[float, float] | None) -> ConditionDifference:
    return (
        difference if pair is None else replace(difference, p_adjusted=pair[0], log_odds_p_adjusted=pair[1])
    )
