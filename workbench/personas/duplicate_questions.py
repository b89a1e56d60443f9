"""The same questions in two personas, found by content: what is trained on one must not be tested on the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.personas.persona import Item, Persona
from workbench.personas.question_groups import normal


@dataclass(frozen=True)
class Duplicate:
    """One question in both.

    same_answers: the answers are the same too, on the same sides; opposite: they are the same with the sides
    swapped, so that one of the two labels is wrong or the question is a matter of its context.
    """

    first: Item
    second: Item
    same_answers: bool
    opposite: bool


def duplicates(first: Persona | Sequence[Item], second: Persona | Sequence[Item]) -> tuple[Duplicate, ...]:
    """Pairs of questions that two personas have in common.

    Every pair (item of the first, item of the second) with the same question and the same two answers in any
    order, or with the same question and one answer in common; compared without case, spacing and punctuation,
    so that the order of the options and the file's format do not matter. Given the same persona twice: its
    own repeated questions.
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
