"""Find questions that two personas have in common, by content.

A question that one of them is trained on must not be tested on the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.personas.persona import Item, Persona
from workbench.personas.question_groups import normal


@dataclass(frozen=True)
class Duplicate:
    """A question that occurs in two personas.

    Attributes:
        first, second: The item of each persona.
        same_answers: Whether both answers are equal too, and the same one shows the persona.
        opposite: Whether the answers are equal but the other one shows the persona, so that one of the labels
            is wrong or the right answer depends on the question's context.
    """

    first: Item
    second: Item
    same_answers: bool
    opposite: bool


def duplicates(first: Persona | Sequence[Item], second: Persona | Sequence[Item]) -> tuple[Duplicate, ...]:
    """Find pairs of items, one of each persona, with the same question and at least one answer in common.

    The order of the answers, case, spacing and punctuation are ignored. If the same persona is given twice,
    the result is its repeated questions.

    Args:
        first: A persona or its items.
        second: A persona or its items.

    Returns:
        The pairs, in the order of the first persona's items.
    """
    theirs = defaultdict(list)
    for item in _items(second):
        theirs[normal(item.question)].append(item)
    found = []
    for item in _items(first):
        for other in theirs[normal(item.question)]:
            if other is not item and set(_answers(item)) & set(_answers(other)):
                same, swapped = _answers(item) == _answers(other), _answers(item) == _answers(other)[::-1]
                found.append(Duplicate(item, other, same, swapped))
    return tuple(found)


def _items(source: Persona | Sequence[Item]) -> Sequence[Item]:
    return source.items if isinstance(source, Persona) else source


def _answers(item: Item) -> tuple[str, str]:
    return normal(item.matching) or item.matching, normal(item.not_matching) or item.not_matching
