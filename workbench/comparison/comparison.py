"""The result of a comparison: figures, differences and questions of every condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from workbench import html_text
from workbench.comparison.claims import ClaimResults, judge_claims
from workbench.comparison.condition_results import ConditionResult
from workbench.comparison.question_changes import question_changes
from workbench.contexts import Metric, Slot
from workbench.errors import UserError
from workbench.personas import Item, Sign
from workbench.schema import ComparisonFile, OffTargetRow, SplitEntry
from workbench.statistics import Interval, groups_needed

#: Fraction of an effect that may be a preference for one answer before the comparison warns.
_BIAS_IN_EFFECT = 0.1
#: Columns of the table in a notebook.
_SHOWN = (
    *("condition", "rate", "rate_low", "rate_high", "shift", "shift_low", "shift_high", "p"),
    *("letter_a", "cross_entropy", "prompt"),
)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Results of several conditions (prompts, steering, controls) on the questions of one split.

    Attributes:
        entries: One result per condition in the given order, the baseline first.
        persona: Name of the persona.
        model: Name of the model.
        sign: Intended effect: "suppress" or "induce".
        metric: How answers are scored: "letters" or "text".
        slot: Place of the prompt in the chat template.
        seed: Seed of the permutation tests.
        split: Name of the split.
        splits: The study's splits, as {name: {n, groups, hash}}.
        baseline: Name of the condition that all others are compared with, usually "no prompt".
        manual: Name of the best prompt written by hand; None if there is none.
        primary: Names of the conditions that Holm's correction covers.
        neutral: Name of the condition that is the mean over neutral sentences (prompts unrelated to the
            persona); None without one.
        items: The questions of the split.
        true_items: The persona's true statements.
        judge: Name of the second model that computed `judge_cross_entropy` (`judged`); None without one.

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
        raise UserError(
            f"no condition {name!r} in this comparison: it has {', '.join(e.name for e in self.entries)}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per condition: a prompt, steering or a control.

        It has the rate and the mean log-odds of the answer that shows the persona. The column `shift` is the
        change of the log-odds relative to the baseline, `beyond_neutral` that relative to the mean of neutral
        sentences; positive means more of the persona. Both have intervals and p-values. If two answers take
        turns as the one that shows the persona, `balanced_shift` weights both equally, and `answer_bias` is the
        change of the log-odds of the first one (by the alphabet) whatever the question.

        The columns `search_rate` and `selection_rate` are rates on the questions with which the prompt was
        found and chosen, and are therefore optimistic. The prompt and the cost of its search (token-layers,
        FLOPs, model calls, seconds) follow.
        """
        return pd.DataFrame([_row(entry, self.baseline, self.neutral) for entry in self.entries])

    @property
    def rows(self) -> pd.DataFrame:
        """Table with one row per answer: each condition's answer to each question and option order.

        The matching answer is the one that shows the persona. Columns are the condition and its kind, `item`
        (id of the question), `group` (its question group), `matching_first` (whether the matching answer is
        shown first), `log_odds` (of the matching answer, nats), `p` (its probability) and `hit` (whether it
        is the likelier one). evaluation.parquet has the same columns.
        """
        parts = []
        for entry in self.entries:
            frame = entry.answers.frame().assign(hit=entry.answers.chose_matching)
            frame.insert(0, "kind", entry.condition.kind)
            frame.insert(0, "condition", entry.name)
            parts.append(frame)
        return pd.concat(parts, ignore_index=True)

    @property
    def off_target_rows(self) -> pd.DataFrame:
        """Table with one row per answer to a question about side effects, as in off_target.parquet.

        It has the answers of each condition to each off-target measure (such as agreement with true
        statements).
        """
        parts = [
            answers.rows(entry.name, name)
            for entry in self.entries
            for name, answers in entry.off_target.items()
        ]
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else pd.DataFrame(columns=list(OffTargetRow.model_fields))
        )

    @property
    def question_rows(self) -> pd.DataFrame:
        """Table with one row per question and the texts of its two answers, as in questions.parquet.

        It has the questions of the split and the persona's true statements, with which a side effect is
        measured.
        """
        asked = [("", item) for item in self.items]
        true = {item.id: item for item in self.true_items}
        for name, answers in self.entries[0].off_target.items():
            asked += [
                (name, true[i])
                for i in dict.fromkeys(answers.items)
                if answers.part == "true statements" and i in true
            ]
        columns = ("measure", "item", "group", "question", "matching", "not_matching")
        rows = [(measure, i.id, i.group, i.question, i.matching, i.not_matching) for measure, i in asked]
        return pd.DataFrame(rows, columns=columns)

    @property
    def questions(self) -> pd.DataFrame:
        """Table with one row per test question under the chosen prompt, largest change first.

        It has the question and its answers, the log-odds of the persona's answer without and with the prompt,
        and whether the likelier answer changed. Use `question_changes` for another condition.
        """
        return self.question_changes()

    def question_changes(self, name: str | None = None) -> pd.DataFrame:
        """Return a table of how a condition changes the answer to each question, as in `questions`.

        Args:
            name: Name of the condition; None for the chosen prompt (`claims.condition`).

        Raises:
            UserError: There is no condition of that name, or no prompt was found.
        """
        chosen = self[name].name if name else self.claims.condition
        if chosen is None:
            raise UserError(
                f"this comparison has no found prompt: name one of {', '.join(e.name for e in self.entries)}"
            )
        changes = question_changes(self.rows, chosen, self.baseline, self.to_file().wanted)
        return changes.merge(
            self.question_rows.query("measure == ''").drop(columns=["measure", "group"]),
            on="item",
            how="left",
        )

    @cached_property
    def claims(self) -> ClaimResults:
        """Results of the claims about the chosen prompt, such as that it works (`judge_claims`).

        The prompt was chosen on selection questions, not on the test questions.
        """
        return judge_claims(self.to_file(), self.rows, self.off_target_rows)

    @property
    def detectable(self) -> dict[str, float]:
        """Smallest true effect on the log-odds that is detected with a power of 0.8, for each condition.

        The effect is relative to the baseline condition.
        """
        return {
            e.name: d.detectable
            for e in self.entries
            if e.name != self.baseline and (d := e.difference(self.baseline))
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the comparison, such as too few question groups, one line each."""
        groups, needed = self.entries[0].rate.groups, groups_needed(max(1, len(self.primary)))
        found = []
        if groups < needed:
            found.append(
                f"{groups} question groups: with {len(self.primary)} primary conditions even a clear effect needs {needed} to pass p < 0.05"
            )
        leaning = [
            e.name
            for e in self.entries
            if e.letter_a_share is not None and not 0.25 <= e.letter_a_share <= 0.75
        ]
        leaning = [name for name in leaning if self[name].condition.kind != "constant_answer"]
        if leaning:
            found.append(f"leans on one letter in more than three of four questions: {', '.join(leaning)}")
        found += [line for e in self.entries if (line := self._biased(e))]
        return tuple(found)

    def _biased(self, entry: ConditionResult) -> str:
        """Return a warning if a tenth of a primary condition's effect is a preference for one answer."""
        shift = entry.difference(self.baseline) if entry.name in self.primary else None
        bias = shift.answer_bias if shift else None
        if shift is None or bias is None or bias.bias.low <= 0 <= bias.bias.high:
            return ""
        if abs(bias.in_mean) < _BIAS_IN_EFFECT * abs(shift.log_odds.value):
            return ""
        return (
            f"{entry.name}: {bias.in_mean:+.2f} of the effect of {shift.log_odds.value:+.2f} is a preference for one answer, as "
            f"{bias.answer!r} shows the persona in {bias.n} questions and {bias.other!r} in {bias.n_other}: "
            f"{bias.balanced.estimate:+.2f} with both weighted equally"
        )

    def to_file(self) -> ComparisonFile:
        """Convert the comparison to the contents of comparison.json."""
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
        """Convert the comparison to the contents of comparison.json as plain values."""
        return self.to_file().to_json()

    @property
    def caption(self) -> str:
        """Persona, model and number of questions of the comparison in one line."""
        rate = self.entries[0].rate
        return f"{self.persona} on {self.model}: {rate.n} contexts in {rate.groups} groups of {self.split}"

    def __repr__(self) -> str:
        lines = [_line(entry, self.baseline) for entry in self.entries]
        head = [self.claims.headline] if self.claims.condition else []
        return "\n".join(
            [
                *head,
                f"Comparison({self.caption})",
                *lines,
                *(f"  note: {warning}" for warning in self.warnings),
            ]
        )

    def _repr_html_(self) -> str:
        shown = self.table.filter([column for column in _SHOWN if column in self.table])
        notes = "".join(f'<p class="wb-note">{html_text.escape(line)}</p>' for line in self.warnings)
        head = f"<p><b>{html_text.escape(self.claims.headline)}</b></p>" if self.claims.condition else ""
        return head + html_text.html_table(shown, self.caption) + notes


def _line(entry: ConditionResult, baseline: str) -> str:
    """Format a condition's rate and effect with their intervals as plain text."""
    rate, shift = entry.rate, entry.difference(baseline)
    line = (
        f"  {html_text.shorten(entry.name, 40)}: rate {rate.estimate:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
    )
    if shift is None or entry.name == baseline:
        return line
    moved = shift.log_odds.interval
    return f"{line}, effect {moved.estimate:+.2f} [{moved.low:+.2f}, {moved.high:+.2f}] nats, p {shift.log_odds.p:.2g}"


def _row(entry: ConditionResult, baseline: str, neutral: str | None) -> dict[str, Any]:
    condition, shift, beyond = (
        entry.condition,
        entry.difference(baseline),
        entry.difference(neutral) if neutral else None,
    )
    row: dict[str, Any] = {"condition": entry.name, "kind": condition.kind}
    row |= _with_ends("rate", entry.rate) | _with_ends("log_odds", entry.log_odds)
    if shift is not None:
        row |= _with_ends("shift", shift.log_odds.interval)
        row |= {
            "p": shift.log_odds.p,
            "p_adjusted": shift.log_odds_p_adjusted,
            "rate_difference": shift.rate.value,
        }
        if shift.answer_bias is not None:
            row |= _with_ends("balanced_shift", shift.answer_bias.balanced)
            row |= _with_ends("answer_bias", shift.answer_bias.bias)
    if beyond is not None:
        row |= _with_ends("beyond_neutral", beyond.log_odds.interval)
    row |= {
        "letter_a": entry.letter_a_share,
        "orders_agree": entry.orders_agree,
        "cross_entropy": entry.cross_entropy,
    }
    row |= {} if entry.judge_cross_entropy is None else {"judge_cross_entropy": entry.judge_cross_entropy}
    row |= {
        "tokens": entry.prompt_tokens,
        "search_rate": condition.search_rate,
        "selection_rate": condition.selection_rate,
    }
    row |= condition.cost.to_json()
    row |= {f"collateral_{name}": value for name, value in entry.collateral.items()}
    return row | {"prompt": condition.prompt}


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
