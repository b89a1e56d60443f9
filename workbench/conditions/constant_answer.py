"""Conditions that always give the same answer: the scores of a model that ignores the question.

No model is run. On balanced data a constant letter scores exactly 50 % on the paper's metric (arXiv
2601.02896), the rate that the paper reads as "neutral"; two of its published prompts contain a letter. With
text answers that always begin with the same word (say, "yes" is always the sycophantic answer) a constant
word scores 0 or 100 %, and only statements that deserve the other answer reveal it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import Condition
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.contexts import Context, Contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, package

#: Log-odds of a constant answer: p = 0.993. Over both option orders of an item they cancel.
CERTAIN = 5.0


@dataclass(frozen=True)
class ConstantAnswer(Condition):
    """A condition that gives the same answer to every question, without a model.

    Attributes:
        constant: The answer. If answers are letters, "A" is the option that is shown first and "B" the
            second; otherwise it is the first word of an answer.
        name: Name in tables; "always ..." if empty.
        kind: Kind of condition, "constant_answer".
        method: How it was made, in words.

    Example:
        >>> wb.ConstantAnswer("yes").name
        'always yes'
    """

    constant: str
    name: str = ""
    kind: str = "constant_answer"
    method: str = "no model"

    def __post_init__(self) -> None:
        if not self.constant.strip():
            raise UserError("a constant answer needs a letter, A or B, or a first word")
        if not self.name:
            object.__setattr__(self, "name", f"always {self.constant}")

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return fixed log-odds of the answers that show the persona, without running a model.

        They are +5 if the constant answer shows the persona, -5 if the other answer does, and 0 if it is
        neither or both.
        """
        sides = [self._side(context, contexts.metric) for context in contexts]
        return package(contexts, CERTAIN * np.array(sides, dtype=np.float64))

    def _side(self, context: Context, metric: str) -> int:
        if metric == "letters":
            if self.constant not in ("A", "B"):
                raise UserError(
                    f"with letters a constant answer is A (shown first) or B, found {self.constant!r}"
                )
            return 1 if context.matching_first == (self.constant == "A") else -1
        return int(_first_word(context.item.matching) == self.constant) - int(
            _first_word(context.item.not_matching) == self.constant
        )


def constant_answers(contexts: Contexts) -> tuple[ConstantAnswer, ...]:
    """Return every constant answer ("always A", "always yes") that is possible for the questions.

    If answers are letters, these are A and B. Otherwise these are the words with which one of the two answers
    to each question begins: the first four in alphabetical order, or none if no word occurs in every
    question.
    """
    if contexts.metric == "letters":
        return ConstantAnswer("A"), ConstantAnswer("B")
    words: dict[str, int] = {}
    for context in contexts:
        for word in {_first_word(context.item.matching), _first_word(context.item.not_matching)}:
            words[word] = words.get(word, 0) + 1
    everywhere = sorted(word for word, count in words.items() if count == len(contexts))
    return tuple(ConstantAnswer(word) for word in everywhere[:4])


def _first_word(text: str) -> str:
    return text.split()[0].strip(".,;:!?")


def _build(context: BuildContext) -> tuple[ConstantAnswer, ...]:
    return constant_answers(context.selection_contexts)


register_kind(
    ConditionKind(
        "constant_answer", "control", "always the same answer, whatever is asked", is_reference=True
    )
)
register_study_condition(
    StudyCondition(
        "constant_answer",
        "constant_answer",
        "each constant answer: a collapsed model",
        _build,
        is_default=True,
        order=10,
    )
)
