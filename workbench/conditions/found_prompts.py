"""Prompts that a search, a sampler or a language model found, with what it cost to find them."""

from __future__ import annotations

from workbench.budget import Cost
from workbench.conditions.prompt import Prompt


def Found(
    text: str,
    kind: str,
    method: str,
    cross_entropy: float | None = None,
    cost: Cost | None = None,
    selection_rate: float | None = None,
    name: str = "",
    search_rate: float | None = None,
) -> Prompt:
    """A prompt that a search found, with what it cost, its rate on the questions searched with and the one it was chosen by."""
    return Prompt(text, name, kind, method, cross_entropy, selection_rate, cost or Cost(), search_rate)
