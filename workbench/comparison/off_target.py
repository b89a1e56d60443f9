"""What a condition does besides: agreement with true statements, other personas, unrelated text.

A prompt that lowers sycophancy by lowering every agreement has not made the model honest (dual stance: centroid steering
against sycophancy also suppressed agreement with true statements), so each effect has these next to it. All are plain
functions of a model and a condition; `compare(..., collateral={"truth": lambda m, c: agreement_with_truth(m, c, split).rate})`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from workbench.conditions import Condition, SoftPrompt, true_contexts
from workbench.contexts import Slot, make_contexts
from workbench.errors import UserError
from workbench.evaluation import text_cross_entropies
from workbench.forced_choice import Answers
from workbench.personas import Split


def agreement_with_truth(
    model: Any, condition: Condition, split: Split, slot: Slot = "system", n: int | None = None
) -> Answers:
    """Answers on the persona's true statements (`Persona.true_items`): the rate is the share that the model agrees with, as it
    should. Raises UserError where the persona has none."""
    return condition.answer(model, true_contexts(model, split, slot, n))


def other_persona_rates(
    model: Any, condition: Condition, others: Mapping[str, Split], slot: Slot = "system", n: int | None = None
) -> dict[str, Answers]:
    """Answers on splits of other personas, by name: does the condition move those too?"""
    return {name: condition.answer(model, make_contexts(model, split, slot, n=n)) for name, split in others.items()}


def text_cross_entropy(model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system") -> float:
    """Mean cross-entropy, nats per token, of texts that have nothing to do with the persona, as the user's words under the
    condition: after its prompt in the system slot or left of them, and under its intervention. Lower is more usual; nan for
    a soft prompt, which is no text that can precede another."""
    if not texts:
        raise UserError("expected at least one text to measure")
    if isinstance(condition, SoftPrompt):
        return math.nan
    with condition.edit(model) if hasattr(condition, "edit") else nullcontext():
        losses = text_cross_entropies(model, texts, condition.prompt, slot)
    return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
