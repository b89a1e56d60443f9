"""The comparison of conditions on held-out questions, each read once.

1. Contexts of the split are made once, every item in both option orders; every condition answers all of them.
2. Each condition's figures, its paired difference to the baseline, to the best manual prompt and to the mean of the neutral sentences
   (condition_results.py). Which manual prompt is best was decided on *selection*; without such a figure it is the first one, never the
   one that looks best here.
3. Holm over the primary conditions, which are named before anything is read.
4. Off-target effects (`collateral`) are measured for every condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from workbench import html_text
from workbench.comparison.claims import ClaimResults, judge_claims
from workbench.comparison.condition_results import ConditionResult, make_entry, with_differences, with_holm
from workbench.comparison.off_target import OffTargetAnswers
from workbench.comparison.question_changes import question_changes
from workbench.conditions import CONDITION_KINDS, Condition, MeanOfPrompts, NoPrompt, Prompt
from workbench.conditions.condition import signed
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts, Metric, Orders, Slot, encode_prompt, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import package
from workbench.models import runner_for
from workbench.personas import Item, Sign, Split
from workbench.schema import ComparisonFile, OffTargetRow, SplitEntry
from workbench.search import Candidate
from workbench.statistics import Interval, groups_needed

#: Measured next to the effect, for each condition: a name and a function of the model and the condition. See off_target.py; what gives
#: `OffTargetAnswers` instead of a figure can be tested for (`claims`).
OffTargetMeasures = Mapping[str, Callable[[Any, Condition], float | OffTargetAnswers]]

#: Columns of the table that a notebook shows.
_SHOWN = (*("condition", "rate", "rate_low", "rate_high", "shift", "shift_low", "shift_high", "p"), *("letter_a", "cross_entropy", "prompt"))


@dataclass(frozen=True, repr=False)
class Comparison:
    """Conditions on one split.

    Attributes:
        entries: One per condition in the order given, the baseline first.
        persona: Name of the persona.
        model: Name of the model.
        sign: "suppress" or "induce".
        metric: "letters" or "text".
        slot: Where prompts were put.
        seed: Of permutations.
        split: The split read.
        splits: Of the study, as {name: {n, groups, hash}}.
        baseline: Name of the condition that all are compared with.
        manual: Name of the best manual prompt, where there is one.
        primary: Names that Holm's correction covers.
        neutral: Name of the mean of the neutral sentences, where there are any.
        items: The questions of the split.
        true_items: The persona's true statements.
        judge: A second model, which judged the prompts' cross-entropy (`judged`).

    Example:
        >>> comparison = wb.compare(model, data.selection.take(6), [wb.Prompt("be honest")])
        >>> list(comparison.table["condition"])
        ['no prompt', 'manual: be honest']
    """

    entries: tuple[ConditionResult, ...]
    persona: str
    model: str
    sign: Sign
    metric: Metric
    slot: Slot
    seed: int
    split: str
    splits: Mapping[str, Mapping[str, Any]]
    baseline: str
    manual: str | None
    primary: tuple[str, ...]
    neutral: str | None = None
    items: tuple[Item, ...] = ()
    true_items: tuple[Item, ...] = ()
    judge: str | None = None

    def __getitem__(self, name: str) -> ConditionResult:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise UserError(f"no condition {name!r} in this comparison: it has {', '.join(e.name for e in self.entries)}")

    @property
    def table(self) -> pd.DataFrame:
        """One row per condition.

        Rate and mean log-odds, effect against the baseline, each with its interval, its p, the effect against the mean of the neutral
        sentences (beyond_neutral), its rates on the questions it was found and chosen with (next to `rate`: the optimism of choosing), what
        it cost (token-layers, operations, model calls, seconds) and its prompt. shift: in log-odds, nats, plus = more of the persona.
        """
        return pd.DataFrame([_row(entry, self.baseline, self.neutral) for entry in self.entries])

    @property
    def rows(self) -> pd.DataFrame:
        """One row per condition and context: condition, kind, item, group, matching_first, log_odds, p, hit (evaluation.parquet)."""
        parts = []
        for entry in self.entries:
            frame = entry.answers.frame().assign(hit=entry.answers.chose_matching)
            frame.insert(0, "kind", entry.condition.kind)
            frame.insert(0, "condition", entry.name)
            parts.append(frame)
        return pd.concat(parts, ignore_index=True)

    @property
    def off_target_rows(self) -> pd.DataFrame:
        """One row a condition, off-target measure and question or text (off_target.parquet)."""
        parts = [answers.rows(entry.name, name) for entry in self.entries for name, answers in entry.off_target.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(OffTargetRow.model_fields))

    @property
    def question_rows(self) -> pd.DataFrame:
        """One row a question that was asked: of the split, and of the off-target measures whose questions are known (questions.parquet)."""
        asked = [("", item) for item in self.items]
        true = {item.id: item for item in self.true_items}
        for name, answers in self.entries[0].off_target.items():
            asked += [(name, true[i]) for i in dict.fromkeys(answers.items) if answers.part == "true statements" and i in true]
        columns = ("measure", "item", "group", "question", "matching", "not_matching")
        rows = [(measure, i.id, i.group, i.question, i.matching, i.not_matching) for measure, i in asked]
        return pd.DataFrame(rows, columns=columns)

    @property
    def questions(self) -> pd.DataFrame:
        """One row a test question under the chosen prompt: its text and answers, log-odds before and after, and whether the answer flipped.

        The largest changes first. `question_changes` gives those of another condition.
        """
        return self.question_changes()

    def question_changes(self, name: str | None = None) -> pd.DataFrame:
        """`questions` of one condition; of the chosen prompt (`claims.condition`) where no name is given.

        Raises:
            UserError: no condition of that name, or no prompt to choose.
        """
        chosen = self[name].name if name else self.claims.condition
        if chosen is None:
            raise UserError(f"this comparison has no found prompt: name one of {', '.join(e.name for e in self.entries)}")
        changes = question_changes(self.rows, chosen, self.baseline, self.to_file().wanted)
        return changes.merge(self.question_rows.query("measure == ''").drop(columns=["measure", "group"]), on="item", how="left")

    @cached_property
    def claims(self) -> ClaimResults:
        """Claims about the prompt that the selection questions chose (`judge_claims`)."""
        return judge_claims(self.to_file(), self.rows, self.off_target_rows)

    @property
    def detectable(self) -> dict[str, float]:
        """The smallest true effect in log-odds against the baseline that this split shows with power 0.8, by condition."""
        return {e.name: d.detectable for e in self.entries if e.name != self.baseline and (d := e.difference(self.baseline))}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the table, one line each."""
        groups, needed = self.entries[0].rate.groups, groups_needed(max(1, len(self.primary)))
        found = []
        if groups < needed:
            found.append(f"{groups} question groups: with {len(self.primary)} primary conditions even a clear effect needs {needed} to pass p < 0.05")
        leaning = [e.name for e in self.entries if e.letter_a_share is not None and not 0.25 <= e.letter_a_share <= 0.75]
        leaning = [name for name in leaning if self[name].condition.kind != "constant_answer"]
        if leaning:
            found.append(f"leans on one letter in more than three of four questions: {', '.join(leaning)}")
        return tuple(found)

    def to_file(self) -> ComparisonFile:
        """comparison.json."""
        return ComparisonFile(
            persona=self.persona,
            model=self.model,
            sign=self.sign,
            metric=self.metric,
            slot=self.slot,
            seed=self.seed,
            split=self.split,
            splits={name: SplitEntry(**facts) for name, facts in self.splits.items()},
            baseline=self.baseline,
            neutral=self.neutral,
            judge=self.judge,
            primary=list(self.primary),
            warnings=list(self.warnings),
            conditions=[entry.to_entry() for entry in self.entries],
        )

    def to_json(self) -> dict[str, Any]:
        """The content of comparison.json: plain values."""
        return self.to_file().to_json()

    @property
    def caption(self) -> str:
        """What was asked of which model, in one line."""
        rate = self.entries[0].rate
        return f"{self.persona} on {self.model}: {rate.n} contexts in {rate.groups} groups of {self.split}"

    def __repr__(self) -> str:
        lines = [_line(entry, self.baseline) for entry in self.entries]
        head = [self.claims.headline] if self.claims.condition else []
        return "\n".join([*head, f"Comparison({self.caption})", *lines, *(f"  note: {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        shown = self.table.filter([column for column in _SHOWN if column in self.table])
        notes = "".join(f'<p class="wb-note">{html_text.escape(line)}</p>' for line in self.warnings)
        head = f"<p><b>{html_text.escape(self.claims.headline)}</b></p>" if self.claims.condition else ""
        return head + html_text.html_table(shown, self.caption) + notes


@dataclass(frozen=True)
class ComparisonOptions:
    """How a comparison is made and what is recorded with it.

    Attributes:
        primary: Names of the conditions that the study is about (Holm's correction); None: all that are neither controls nor
            there to compare with (no prompt, constant answers, manual prompts).
        orders: Orders in which options are shown.
        seed: Of permutations and of drawn contexts.
        level: Of the intervals.
        splits: The study's splits, to be recorded next to the one read.
        collateral: Off-target effects to measure (`OffTargetMeasures`).
        model_name: As it is recorded; None: the model's own.

    Example:
        >>> wb.ComparisonOptions(level=0.9).orders
        'both'
    """

    primary: Sequence[str] | None = None
    orders: Orders = "both"
    seed: int = 0
    level: float = 0.95
    splits: Sequence[Split] = ()
    collateral: OffTargetMeasures | None = None
    model_name: str | None = None


def compare(
    model: Any,
    split: Split,
    conditions: Sequence[Any],
    slot: Slot = "system",
    baseline: str = "no prompt",
    sign: Sign = "suppress",
    metric: Metric | None = None,
    options: ComparisonOptions | None = None,
) -> Comparison:
    """Every condition on every question of the split, with paired cluster-robust statistics.

    Args:
        model: A loaded model or its runner.
        split: The questions, usually the test split.
        conditions: `Condition`s, texts, or a search's `Candidate` (counted as kind "resga": use `Found` to say another); NoPrompt is put
            first where it is missing.
        slot: Where prompts are put.
        baseline: Name of the condition that all are compared with.
        sign: What is wanted, "suppress" or "induce".
        metric: "letters" or "text"; the persona's own when None.
        options: Primary conditions, seed, level, and what is recorded.

    Returns:
        Rate and log-odds of each condition, differences to the baseline and to the best manual prompt, each with its interval and p-value.

    Raises:
        UserError: Two conditions of one name, a kind that is not registered, or an unknown baseline or primary name.

    Example:
        >>> comparison = wb.compare(model, data.test.take(6), [wb.Prompt("be honest"), wb.Steering(direction, -2.0)])
        >>> comparison["manual: be honest"].rate.estimate < comparison["no prompt"].rate.estimate
        True
    """
    signed(sign)
    options = options or ComparisonOptions()
    chosen = _conditions(conditions)
    names = [condition.name for condition in chosen]
    primary = tuple(options.primary) if options.primary is not None else tuple(c.name for c in chosen if CONDITION_KINDS[c.kind].is_tested)
    _check_names(names, baseline, primary)
    contexts = make_contexts(model, split, slot, metric, options.orders, seed=options.seed)
    entries = _measure_all(model, chosen, contexts, options)
    manual, neutral = _best_manual(chosen), next((c.name for c in chosen if isinstance(c, MeanOfPrompts)), None)
    others = list(dict.fromkeys(name for name in (baseline, manual, neutral) if name is not None))
    entries = with_holm(with_differences(entries, others, options.level, options.seed), primary)
    facts = {s.name: split_facts(s) for s in (*options.splits, split)}
    name = options.model_name or _model_name(model)
    return Comparison(
        tuple(entries),
        split.persona.name,
        name,
        sign,
        contexts.metric,
        slot,
        options.seed,
        split.name,
        facts,
        baseline,
        manual,
        primary,
        neutral,
        tuple(split),
        tuple(split.persona.true_items),
    )


def split_facts(split: Split) -> dict[str, Any]:
    """A split as comparison.json names it: items, groups, and the hash of its content."""
    return {"n": len(split), "groups": len(set(split.groups)), "hash": split.hash}


def _measure_all(model: Any, chosen: Sequence[Condition], contexts: Contexts, options: ComparisonOptions) -> list[ConditionResult]:
    """Every condition's figures; a mean of prompts is made of its members' answers, each measured once."""
    done: dict[int, ConditionResult] = {}

    def measured(condition: Condition) -> ConditionResult:
        if id(condition) not in done:
            members = [measured(member) for member in condition.members] if isinstance(condition, MeanOfPrompts) else []
            done[id(condition)] = (
                _mean(condition, members, contexts, options.level)
                if members
                else _measure(model, condition, contexts, options.level, options.collateral or {})
            )
        return done[id(condition)]

    return [measured(condition) for condition in chosen]


def _mean(condition: Condition, members: Sequence[ConditionResult], contexts: Contexts, level: float) -> ConditionResult:
    """The mean of the members' log-odds in every context, and of what else they move."""
    answers = package(contexts, np.mean([member.answers.log_odds for member in members], axis=0))
    off_target = {name: float(np.mean([member.collateral[name] for member in members])) for name in members[0].collateral}
    return replace(make_entry(condition, answers, contexts.metric == "letters", level), collateral=off_target)


def _measure(model: Any, condition: Condition, contexts: Contexts, level: float, collateral: OffTargetMeasures) -> ConditionResult:
    entry = make_entry(condition, condition.answer(model, contexts), contexts.metric == "letters", level)
    measured = {name: measure(model, condition) for name, measure in collateral.items()}
    answered = {name: found for name, found in measured.items() if isinstance(found, OffTargetAnswers)}
    figures = {name: found.figure if isinstance(found, OffTargetAnswers) else float(found) for name, found in measured.items()}
    entry = replace(entry, collateral=figures, off_target=answered)
    if condition.prompt is None:
        return entry
    cross_entropy = condition.cross_entropy if condition.cross_entropy is not None else prompt_cross_entropy(model, contexts, condition.prompt)
    tokens = len(encode_prompt(model, contexts, condition.prompt))
    return replace(entry, cross_entropy=cross_entropy, prompt_tokens=tokens)


def _conditions(given: Sequence[Any]) -> list[Condition]:
    chosen = [_as_condition(one) for one in given]
    if not any(condition.kind == "none" for condition in chosen):
        chosen.insert(0, NoPrompt())
    return sorted(chosen, key=lambda condition: condition.kind != "none")


def _as_condition(given: Any) -> Condition:
    """A condition as it is; a text as a manual prompt; what a search found as a prompt with its fluency."""
    if isinstance(given, Condition):
        CONDITION_KINDS[given.kind]  # a UserError that lists the known ones
        return given
    if isinstance(given, str):
        return Prompt(given)
    if isinstance(given, Candidate):
        found: dict[str, Any] = {"cross_entropy": given.cross_entropy, "selection_rate": given.selection_rate}
        return Prompt(given.text, "found prompt", "resga", "found by search", **found)
    raise UserError(f"expected a condition, a prompt or a text, found {type(given).__name__}")


def _best_manual(conditions: Sequence[Condition]) -> str | None:
    manual = [c for c in conditions if c.kind == "manual"]
    chosen = [c for c in manual if c.selection_rate is not None]
    return (chosen or manual)[0].name if manual else None


def _check_names(names: Sequence[str], baseline: str, primary: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"two conditions are named {repeated[0]!r}: give each a name of its own")
    for role, name in [("baseline", baseline), *(("primary condition", name) for name in primary)]:
        if name not in names:
            raise UserError(f"the {role} {name!r} is none of the conditions: {', '.join(names)}")


def _model_name(model: Any) -> str:
    runner = runner_for(model)
    return str(getattr(runner.model.cfg, "model_name", None) or type(runner.model).__name__)


def _line(entry: ConditionResult, baseline: str) -> str:
    """Rate and effect with their intervals, as plain text."""
    rate, shift = entry.rate, entry.difference(baseline)
    line = f"  {html_text.shorten(entry.name, 40)}: rate {rate.estimate:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
    if shift is None or entry.name == baseline:
        return line
    moved = shift.log_odds.interval
    return f"{line}, effect {moved.estimate:+.2f} [{moved.low:+.2f}, {moved.high:+.2f}] nats, p {shift.log_odds.p:.2g}"


def _row(entry: ConditionResult, baseline: str, neutral: str | None) -> dict[str, Any]:
    condition, shift, beyond = entry.condition, entry.difference(baseline), entry.difference(neutral) if neutral else None
    row: dict[str, Any] = {"condition": entry.name, "kind": condition.kind}
    row |= _with_ends("rate", entry.rate) | _with_ends("log_odds", entry.log_odds)
    if shift is not None:
        row |= _with_ends("shift", shift.log_odds.interval)
        row |= {"p": shift.log_odds.p, "p_adjusted": shift.log_odds_p_adjusted, "rate_difference": shift.rate.value}
    if beyond is not None:
        row |= _with_ends("beyond_neutral", beyond.log_odds.interval)
    row |= {"letter_a": entry.letter_a_share, "orders_agree": entry.orders_agree, "cross_entropy": entry.cross_entropy}
    row |= {} if entry.judge_cross_entropy is None else {"judge_cross_entropy": entry.judge_cross_entropy}
    row |= {"tokens": entry.prompt_tokens, "search_rate": condition.search_rate, "selection_rate": condition.selection_rate}
    row |= condition.cost.to_json()
    row |= {f"collateral_{name}": value for name, value in entry.collateral.items()}
    return row | {"prompt": condition.prompt}


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
