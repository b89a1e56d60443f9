"""The question without a prompt: the baseline of every comparison."""

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
    """The question without a prompt: the baseline of every comparison.

    The chat is rendered without the part, such as the system message, that a prompt would be in.

    Attributes:
        name: Name in tables.
        kind: Kind of condition, "none".
        method: How it was made, in words.

    Example:
        >>> wb.NoPrompt().name
        'no prompt'
    """

    name: str = "no prompt"
    kind: str = "none"
    method: str = "none"

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return the log-odds of the answers that show the persona, without a prompt (`Context.bare_ids`)."""
        return answer(model, contexts)
