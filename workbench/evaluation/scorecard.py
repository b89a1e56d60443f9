"""All metrics of one model with one prompt in one table, the scorecard.

It has the persona by letters, by answer texts and in open answers, and the side effects of the prompt. One
metric alone can mislead: the letters of a small model may say nothing about the persona while its fraction of
A moves from 0.03 to 1, and a prompt that lowers a persona may lower everything else too. Each metric is shown
with its chance level and its n.
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
    """Measurements of a scorecard in addition to the model's choices between two answers.

    Empty ones are left out.

    Attributes:
        capability: A split of questions whose matching options are the correct ones (such as CAA's MMLU
            questions).
        texts: Texts unrelated to the persona, for perplexity.
        truthful: TruthfulQA questions.
        judge: Judge of the answers in the model's own words. None: only refusals are counted.
        n_open: Number of questions that are answered in the model's own words.
        max_new_tokens: Most tokens of such an answer.

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
    """Measure how a model answers a persona's questions, with or without a prompt, as a scorecard of metrics.

    Edits of the model that are active (`condition.edit(model)`) are applied.

    Args:
        model: A loaded model or its runner.
        split: The questions.
        prompt: Text of the prompt. None: no prompt.
        slot: Place in the chat where the prompt goes.
        extras: Additional measurements. None: only the choice between the two answers of each question.
        n: Number of questions drawn from the split. None: all.
        seed: Seed of the drawing of questions.

    Returns:
        One metric per row, each with its interval over question groups, its chance level and the number of
        questions.

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
    """Settings of a scorecard's forced choices: model, prompt, slot, and number of questions."""

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
        """Return two rates: of the persona's option chosen by letter, and of the first option chosen."""
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
        """Return the metric of the choice between the options' texts.

        Items of which one option is the beginning of the other cannot be compared and are counted as missing.
        If no item can be compared, there is no metric.
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
    """Return the rate of refusals and, with a judge, its mean verdict, on the same greedy answers."""
    answers = open_answers(model, split.items, prompt, slot, extras.max_new_tokens)
    found = [judge_all(answers, REFUSAL).metric("refusals", "open answers that decline, by pattern")]
    if extras.judge is not None:
        found.append(judge_all(answers, extras.judge).metric("open answers", "judge's score, 0 to 1"))
    return found
