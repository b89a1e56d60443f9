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
    """A prompt that a search found, as a condition.

    Args:
        text: The prompt.
        kind: A registered kind of condition, such as "resga".
        method: How it was found, in words.
        cross_entropy: Nats per token.
        cost: What the search cost.
        selection_rate: Rate on the questions that it was chosen by.
        name: In tables; made from kind and text when empty.
        search_rate: Rate on the questions that were searched with.

    Returns:
        A `Prompt`.

    Example:
        >>> wb.Found("candid modest", kind="resga", method="EPO, 40 steps").kind
        'resga'
    """
    return Prompt(text, name, kind, method, cross_entropy, selection_rate, cost or Cost(), search_rate)
