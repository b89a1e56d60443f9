"""Prompts as text: written by hand, or found by a search; and no prompt at all.

The manual prompts that people would write are the baseline that beats most steering methods (AxBench, Wu et al. 2025): several
are tried, and the best is chosen on *selection*, as a found prompt is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.budget import Cost
from workbench.conditions.condition import Condition, Kind, as_contexts, signed, spending
from workbench.contexts import Contexts, Slot
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer, answer_prompts
from workbench.personas import Sign, Split


@dataclass(frozen=True)
class NoPrompt(Condition):
    """The bare question, rendered without the slot: what everything is compared with."""

    name: str = "no prompt"
    kind: Kind = "none"
    method: str = "none"

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """The model's answers to the bare questions (`Context.bare_ids`)."""
        return answer(model, contexts)


@dataclass(frozen=True)
class Prompt(Condition):
    """A text in the slot, by default one that a person wrote."""

    text: str
    name: str = ""
    kind: Kind = "manual"
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
        """The text in the slot."""
        return self.text

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """The answers with the text in the contexts' slot; UserError where its tokens do not survive there."""
        return answer(model, contexts, self.text)


def Found(
    text: str,
    kind: Kind,
    method: str,
    cross_entropy: float | None = None,
    cost: Cost | None = None,
    selection_rate: float | None = None,
    name: str = "",
    search_rate: float | None = None,
) -> Prompt:
    """A prompt that a search found, with what it cost, its rate on the questions searched with and the one it was chosen by."""
    return Prompt(text, name or f"{kind}: {_short(text)}", kind, method, cross_entropy, selection_rate, cost or Cost(), search_rate)


@dataclass(frozen=True)
class ManualPrompts:
    """Prompts that people would write against (or for) a persona."""

    prompts: tuple[str, ...]

    def __init__(self, prompts: Sequence[str]) -> None:
        if isinstance(prompts, str) or not prompts:
            raise UserError("expected a list of at least one manual prompt")
        object.__setattr__(self, "prompts", tuple(prompts))

    def choose(
        self,
        model: Any,
        selection: Split | Contexts,
        sign: Sign = "suppress",
        slot: Slot = "system",
        name: str = "manual",
    ) -> Prompt:
        """The one that moves the mean log-odds furthest in the sign's direction on the selection data (ties: the earlier)."""
        contexts = as_contexts(model, selection, slot)
        with spending(model, contexts) as receipt:
            tried = answer_prompts(model, contexts, self.prompts)
        best = max(range(len(tried)), key=lambda i: (signed(sign) * float(tried[i].log_odds.mean()), -i))
        method = f"best of {len(tried)} on selection"
        return Prompt(self.prompts[best], name, "manual", method, selection_rate=tried[best].rate, cost=receipt.cost)


def with_selection_rate(condition: Prompt, model: Any, selection: Split | Contexts, slot: Slot = "system") -> Prompt:
    """The same prompt with its rate on the selection data written down."""
    return replace(condition, selection_rate=condition.answer(model, as_contexts(model, selection, slot)).rate)


def _short(text: str, limit: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
