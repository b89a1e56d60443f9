"""No prompt at all: the bare question, which everything is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.conditions.condition import Condition
from workbench.conditions.condition_registry import ConditionKind, register_kind
from workbench.contexts import Contexts
from workbench.forced_choice import Answers, answer

register_kind(
    ConditionKind("none", "control", "the model as it is", control_of=("works",), is_reference=True)
)


@dataclass(frozen=True)
class NoPrompt(Condition):
    """The bare question, rendered without the slot: what everything is compared with.

    Attributes:
        name: In tables.
        kind: "none".
        method: How it was made.

    Example:
        >>> wb.NoPrompt().name
        'no prompt'
    """

    name: str = "no prompt"
    kind: str = "none"
    method: str = "none"

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """The model's answers to the bare questions (`Context.bare_ids`)."""
        return answer(model, contexts)
