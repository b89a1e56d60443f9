"""Off-target effects of a condition: agreement with true statements, other personas, unrelated text.

A prompt that lowers sycophancy by lowering every agreement has not made the model honest (dual stance:
centroid steering against sycophancy also suppressed agreement with true statements). So these measures are
reported with each effect. All are plain functions of a model and a condition, for example
`compare(..., collateral={"truth": lambda m, c: agreement_with_truth(m, c, split).rate})`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.conditions import Condition, SoftPrompt, true_contexts
from workbench.contexts import Slot, make_contexts
from workbench.errors import UserError
from workbench.evaluation import text_cross_entropies
from workbench.forced_choice import Answers
from workbench.personas import Split


@dataclass(frozen=True)
class OffTargetAnswers:
    """Answers to the questions of one off-target measure (a side effect) under one condition.

    Attributes:
        part: Kind of side effect: "true statements", "other personas" or "capability" (unrelated texts).
        figure: Summary over all questions or texts: a rate, mean log-odds, or cross-entropy in nats per
            token.
        values: Log-odds of the matching answer to each question, or cross-entropy of each text.
        items: Id of each value's question or text.
        groups: Group of each question or text, for clustered intervals.
        hits: For each question, whether the matching answer was the likelier one; None for texts. The
            matching answer is the right one, or the one that shows the other persona.
    """

    part: str
    figure: float
    values: np.ndarray
    items: tuple[str, ...]
    groups: tuple[str, ...]
    hits: np.ndarray | None = None

    @classmethod
    def of(cls, answers: Answers, part: str, figure: float) -> OffTargetAnswers:
        """Make the record of one off-target measure (a side effect) from the answers to its questions.

        Args:
            answers: The answers under one condition.
            part: Kind of side effect: "true statements", "other personas" or "capability".
            figure: Summary over all questions, such as the rate or the mean log-odds.
        """
        return cls(part, figure, answers.log_odds, answers.item_id, answers.group, answers.chose_matching)

    def rows(self, condition: str, measure: str) -> pd.DataFrame:
        """Return the answers as rows of off_target.parquet, one row per question or text.

        Args:
            condition: Name of the condition (prompt or control) under which the answers were given.
            measure: Name of the off-target measure.
        """
        columns = {"item": self.items, "group": self.groups, "value": self.values}
        frame = pd.DataFrame({"condition": condition, "measure": measure, "part": self.part} | columns)
        return frame.assign(
            hit=pd.array([None] * len(frame) if self.hits is None else self.hits, dtype="boolean")
        )


def agreement_with_truth(
    model: Any, condition: Condition, split: Split, slot: Slot = "system", n: int | None = None
) -> Answers:
    """Measure how often the model agrees with true statements under a condition (a prompt or steering).

    Each persona has a list of such statements (`Persona.true_items`). A prompt that lowers sycophancy, for
    example, should not lower agreement with them.

    Args:
        model: A loaded model or its runner.
        condition: The prompt, steering or control under which the model answers.
        split: A split of the persona.
        slot: Place of the prompt in the chat template.
        n: Number of statements; None for all.

    Returns:
        The answers; their rate is the fraction of statements that the model agrees with.

    Raises:
        UserError: The persona has no true statements.
    """
    return condition.answer(model, true_contexts(model, split, slot, n))


def other_persona_rates(
    model: Any, condition: Condition, others: Mapping[str, Split], slot: Slot = "system", n: int | None = None
) -> dict[str, Answers]:
    """Measure the answers to other personas' questions, to see whether a condition changes these too.

    A condition is a prompt, steering or a control.

    Args:
        model: A loaded model or its runner.
        condition: The condition.
        others: Splits of other personas by name.
        slot: Place of the prompt in the chat template.
        n: Number of questions of each; None for all.

    Returns:
        The answers by name.
    """
    return {
        name: condition.answer(model, make_contexts(model, split, slot, n=n))
        for name, split in others.items()
    }


def text_cross_entropy(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system"
) -> float:
    """Return the mean cross-entropy, in nats per token, of texts unrelated to the persona.

    Each text is the user's message. The condition's prompt is in the system message or directly before the
    text; steering is active. If the cross-entropy is higher than without the condition, the condition harms
    the model's general capability. The result is nan for a soft prompt, because texts cannot be put after it.

    Args:
        model: A loaded model or its runner.
        condition: The prompt, steering or control.
        texts: The texts.
        slot: Place of the prompt in the chat template.
    """
    return unrelated_text(model, condition, texts, slot).figure


def unrelated_text(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system"
) -> OffTargetAnswers:
    """Measure the cross-entropy of each unrelated text under a condition (see `text_cross_entropy`).

    The result has no values if the condition is a soft prompt.

    Args:
        model: A loaded model or its runner.
        condition: The condition.
        texts: Texts that are unrelated to the persona.
        slot: Place of the prompt in the chat template.
    """
    losses = _text_losses(model, condition, texts, slot)
    figure = sum(loss * n for loss, n in losses) / sum(n for _, n in losses) if losses else math.nan
    names = tuple(f"text {i}" for i in range(len(losses)))
    return OffTargetAnswers(
        "capability", figure, np.array([loss for loss, _ in losses], dtype=np.float64), names, names
    )


def _text_losses(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot
) -> list[tuple[float, int]]:
    """Return (nats per token, number of tokens) of each text; empty for a soft prompt."""
    if not texts:
        raise UserError("expected at least one text to measure")
    if isinstance(condition, SoftPrompt):
        return []
    edit = getattr(condition, "edit", None)
    with edit(model) if edit else nullcontext():
        return text_cross_entropies(model, texts, condition.prompt, slot)
