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
    """A question that two personas have in common.

    Attributes:
        first, second: The item of each persona.
        same_answers: Whether both answers are the same too, with the same one matching.
        opposite: Whether the answers are the same but the other one matches, so that one of the labels is
            wrong or the right answer depends on the question's context.
    """

    first: Item
    second: Item
    same_answers: bool
    opposite: bool


def duplicates(first: Persona | Sequence[Item], second: Persona | Sequence[Item]) -> tuple[Duplicate, ...]:
    """Find pairs of items, one of each persona, with the same question.

    A pair also needs the same two answers in any order, or one answer in common. Case, spacing and
    punctuation are ignored, so that neither the order of the options nor the file's format matters. If the
    same persona is given twice, the result has its repeated questions.

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
