"""Prompts that a search, a sampler or a language model found, with the cost of finding them."""

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
    """Make a condition from a prompt that a search, a sampler or a language model found.

    A rate is the fraction of questions that the model answers as the persona.

    Args:
        text: The prompt.
        kind: A registered kind of condition, such as "resga".
        method: How the prompt was found, in words.
        cross_entropy: Mean cross-entropy of its tokens, nats per token; None if not measured.
        cost: Cost of finding it; None for no cost.
        selection_rate: Rate on the questions by which the prompt was chosen.
        name: Name in tables; made from kind and text if empty.
        search_rate: Rate on the questions that the search used.

    Returns:
        A `Prompt`.

    Example:
        >>> wb.Found("candid modest", kind="resga", method="EPO, 40 steps").kind
        'resga'
    """
    return Prompt(text, name, kind, method, cross_entropy, selection_rate, cost or Cost(), search_rate)
