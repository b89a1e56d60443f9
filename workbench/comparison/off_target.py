"""Off-target effects of a condition: agreement with true statements, other personas, unrelated text.

A prompt that lowers sycophancy by lowering every agreement has not made the model honest (dual stance:
centroid steering against sycophancy also suppressed agreement with true statements), so each effect has these
next to it. All are plain functions of a model and a condition;
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
    """One measure of one condition, question by question.

    Attributes:
        part: "true statements", "other personas" or "capability".
        figure: What comparison.json has of it: a rate, mean log-odds, or nats a token.
        values: Log-odds of each question, or nats a token of each text.
        items: The question or text of each value.
        groups: What belongs together.
        hits: Was the matching answer the likelier one; None for texts.
    """

    part: str
    figure: float
    values: np.ndarray
    items: tuple[str, ...]
    groups: tuple[str, ...]
    hits: np.ndarray | None = None

    @classmethod
    def of(cls, answers: Answers, part: str, figure: float) -> OffTargetAnswers:
        """From the answers to questions."""
        return cls(part, figure, answers.log_odds, answers.item_id, answers.group, answers.chose_matching)

    def rows(self, condition: str, measure: str) -> pd.DataFrame:
        """Rows of off_target.parquet."""
        columns = {"item": self.items, "group": self.groups, "value": self.values}
        frame = pd.DataFrame({"condition": condition, "measure": measure, "part": self.part} | columns)
        return frame.assign(
            hit=pd.array([None] * len(frame) if self.hits is None else self.hits, dtype="boolean")
        )


def agreement_with_truth(
    model: Any, condition: Condition, split: Split, slot: Slot = "system", n: int | None = None
) -> Answers:
    """Answers on the persona's true statements (`Persona.true_items`): the rate is the fraction that the model agrees with, as it should.

    Raises UserError where the persona has none.
    """
    return condition.answer(model, true_contexts(model, split, slot, n))


def other_persona_rates(
    model: Any, condition: Condition, others: Mapping[str, Split], slot: Slot = "system", n: int | None = None
) -> dict[str, Answers]:
    """Answers on splits of other personas, by name: does the condition move those too?"""
    return {
        name: condition.answer(model, make_contexts(model, split, slot, n=n))
        for name, split in others.items()
    }


def text_cross_entropy(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system"
) -> float:
    """Mean cross-entropy, nats per token, of texts that have nothing to do with the persona, as the user's words under the condition.

    After its prompt in the system slot or left of them, and under its intervention. Lower is more usual; nan
    for a soft prompt, which is no text that can precede another.
    """
    return unrelated_text(model, condition, texts, slot).figure


def unrelated_text(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system"
) -> OffTargetAnswers:
    """`text_cross_entropy` with the figure of every text (no figures for a soft prompt)."""
    losses = _text_losses(model, condition, texts, slot)
    figure = sum(loss * n for loss, n in losses) / sum(n for _, n in losses) if losses else math.nan
    names = tuple(f"text {i}" for i in range(len(losses)))
    return OffTargetAnswers(
        "capability", figure, np.array([loss for loss, _ in losses], dtype=np.float64), names, names
    )


def _text_losses(
    model: Any, condition: Condition, texts: Sequence[str], slot: Slot
) -> list[tuple[float, int]]:
    """(nats a token, tokens) of each text; empty for a soft prompt."""
    if not texts:
        raise UserError("expected at least one text to measure")
    if isinstance(condition, SoftPrompt):
        return []
    edit = getattr(condition, "edit", None)
    with edit(model) if edit else nullcontext():
        return text_cross_entropies(model, texts, condition.prompt, slot)
