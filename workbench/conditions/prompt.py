"""A prompt given as text, no matter who or what wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from workbench.budget import Cost
from workbench.conditions.condition import Condition
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer


@dataclass(frozen=True)
class Prompt(Condition):
    """A prompt as a condition; by default a person wrote it (use `Found` for prompts of a search).

    A rate is the fraction of questions that the model answers as the persona.

    Attributes:
        text: The prompt.
        name: Name in tables; made from kind and text if empty.
        kind: A registered kind of condition.
        method: How it was made, in words.
        cross_entropy: Mean cross-entropy of its tokens, nats per token; None if not measured.
        selection_rate: Rate on the questions by which the prompt was chosen.
        cost: Cost of finding it.
        search_rate: Rate on the questions on which it was searched for.

    Example:
        >>> wb.Prompt("be honest").name
        'manual: be honest'
    """

    text: str
    name: str = ""
    kind: str = "manual"
    method: str = "as written"
    cross_entropy: float | None = None
    selection_rate: float | None = None
    cost: Cost = field(default_factory=Cost)
    search_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UserError("an empty prompt: expected at least one token (use NoPrompt for none)")
        if not self.name:
            object.__setattr__(self, "name", f"{self.kind}: {_short(self.text)}")

    @property
    def prompt(self) -> str:  # type: ignore[override]
        """The prompt's text, which goes into the part of the chat that is reserved for it."""
        return self.text

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return the log-odds of the answers that show the persona, with the prompt in the chat.

        Raises:
            UserError: The prompt's tokens change when the text is put into the chat.
        """
        return answer(model, contexts, self.text)


def _short(text: str, limit: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
