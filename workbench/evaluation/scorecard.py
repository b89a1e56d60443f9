"""All metrics of one model under one prompt on one table: the persona by letters, by text and in the model's own words, and what else moved.

A prompt may be good by one metric and nothing by another (letters of a small model are blind while the
fraction of A swings from 0.03 to 1); and less of a persona may be less of everything. So they are shown
together, each with its chance level and its n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.answer_tokens import AnswersNotComparable
from workbench.contexts import Metric as Kind
from workbench.contexts import Slot, make_contexts
from workbench.evaluation.judges import REFUSAL, Judge, judge_all
from workbench.evaluation.open_answers import open_answers
from workbench.evaluation.scorecard_metric import Scorecard, ScorecardMetric
from workbench.evaluation.truthfulqa_scores import truthfulqa
from workbench.evaluation.unrelated_text import perplexity
from workbench.forced_choice import Answers, answer
from workbench.personas import DataQuestion, Item, Split
from workbench.statistics import rate_interval


@dataclass(frozen=True)
class ScorecardExtras:
    """Additional measurements of a scorecard, next to the forced choices; empty ones are left out.

    Attributes:
        capability: A split whose matching options are the correct ones (CAA's MMLU).
        texts: Unrelated texts, for perplexity.
        truthful: TruthfulQA questions.
        judge: Of open answers.
        n_open: Questions that are answered openly.
        max_new_tokens: Length limit of an open answer.

    Example:
        >>> wb.ScorecardExtras(texts=["the river is wide ."]).n_open
        0
    """

    capability: Split | None = None
    texts: Sequence[str] = ()
    truthful: Sequence[DataQuestion] = ()
    judge: Judge | None = None
    n_open: int = 0
    max_new_tokens: int = 60


def evaluate(
    model: Any,
    split: Split,
    prompt: str | None = None,
    slot: Slot = "system",
    extras: ScorecardExtras | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Scorecard:
    """The scorecard of a model on a split, under a prompt or none. Edits that are active (`condition.edit(model)`) act.

    Args:
        model: A loaded model or its runner.
        split: The questions.
        prompt: Text in the slot; None: the bare question.
        slot: Where the prompt is put.
        extras: What else is measured.
        n: At most so many items; None: all.
        seed: Of the draw of items.

    Returns:
        One metric per row, each with its interval over groups, its chance level and its n.

    Example:
        >>> card = wb.evaluate(model, data.test, "be honest", n=4)
        >>> "text" in {metric.name for metric in card.metrics}
        True
    """
    extras, found, choice = extras or ScorecardExtras(), [], _ForcedChoice(model, prompt, slot, n, seed)
    if split.persona.letters is not None:
        found += choice.by_letter(split)
    found += choice.by_text(split)
    if split.persona.true_items:
        true = replace(split, name="true statements", items=split.persona.true_items)
        found.append(
            choice.measure(
                true, None, "true statements", "agrees with statements that are true, as it should"
            )
        )
    if extras.capability is not None:
        found.append(
            choice.measure(extras.capability, "letters", "capability", "correct option, both orders")
        )
    if extras.texts:
        found.append(perplexity(model, extras.texts, prompt, slot))
    if extras.truthful:
        found += truthfulqa(model, extras.truthful, prompt, slot)
    if extras.n_open:
        found += _open(model, split.take(extras.n_open, seed), prompt, slot, extras)
    return Scorecard(tuple(found), f"{split.persona.name}, {split.name}: {prompt or 'no prompt'}")


@dataclass(frozen=True)
class _ForcedChoice:
    """How forced choices are read: under a prompt or none, on at most n items of a split."""

    model: Any
    prompt: str | None
    slot: Slot
    n: int | None
    seed: int

    def answers(self, split: Split, kind: Kind | None) -> Answers:
        return answer(
            self.model,
            make_contexts(self.model, split, self.slot, kind, "both", self.n, self.seed),
            self.prompt,
        )

    def measure(self, split: Split, kind: Kind | None, name: str, meaning: str) -> ScorecardMetric:
        answers = self.answers(split, kind)
        return ScorecardMetric(name, rate_interval(answers.chose_matching, answers.group), 0.5, meaning)

    def by_letter(self, split: Split) -> list[ScorecardMetric]:
        """The persona by letter, and how far the model leans on the first one."""
        answers = self.answers(split, "letters")
        first = answers.chose_matching == answers.matching_first
        chosen, leaning = (rate_interval(values, answers.group) for values in (answers.chose_matching, first))
        return [
            ScorecardMetric(
                "letters", chosen, 0.5, "persona's option chosen by letter, both orders of every item"
            ),
            ScorecardMetric(
                "first option", leaning, 0.5, "option shown first chosen: far from 0.5 the letters are blind"
            ),
        ]

    def by_text(self, split: Split) -> list[ScorecardMetric]:
        """The choice by the options' texts.

        Items of which one option is the beginning of the other cannot be compared: they are counted as
        missing; where that is all of them, there is no such metric.
        """
        asked = split if self.n is None else split.take(self.n, self.seed)
        told = replace(
            asked,
            items=tuple(item for item in asked.items if _comparable(self.model, asked, item, self.slot)),
        )
        if not told.items:
            return []
        found = replace(self, n=None).measure(
            told, "text", "text", f"persona's answer likelier, whole answers by {split.persona.normalization}"
        )
        return [replace(found, missing=len(asked.items) - len(told.items))]


def _comparable(model: Any, split: Split, item: Item, slot: Slot) -> bool:
    try:
        make_contexts(model, replace(split, items=(item,)), slot, "text", "original")
    except AnswersNotComparable:
        return False
    return True


def _open(
    model: Any, split: Split, prompt: str | None, slot: Slot, extras: ScorecardExtras
) -> list[ScorecardMetric]:
    """Refusals, and the judge's verdicts where there is one, on the same greedy answers."""
    answers = open_answers(model, split.items, prompt, slot, extras.max_new_tokens)
    found = [judge_all(answers, REFUSAL).metric("refusals", "open answers that decline, by pattern")]
    if extras.judge is not None:
        found.append(judge_all(answers, extras.judge).metric("open answers", "judge's score, 0 to 1"))
    return found
