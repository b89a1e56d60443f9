"""Draws of a few questions in which a model's preference for one answer cancels.

Questions are *counterbalanced* if each answer text shows the persona in as many of them as it does not. If the
same answers belong to all question groups ("good", "bad"), a draw can be balanced over its groups. If a group has
answers of its own ("Rome ...", "Paris ..."), a preference for one of them cancels only against another question of
the same group, so a draw has to take such questions together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol


class Answered(Protocol):
    """A question with its group and its two answers; the matching one shows the persona."""

    @property
    def group(self) -> str:
        """Group of related questions."""
        ...

    @property
    def matching(self) -> Hashable:
        """The answer that shows the persona."""
        ...

    @property
    def not_matching(self) -> Hashable:
        """The answer that does not show the persona."""
        ...


def counterbalanced(items: Sequence[Answered]) -> bool:
    """Whether each text that is an answer shows the persona in as many questions as it does not.

    A model's preference for one answer then cancels over the questions.
    """
    return bool(items) and Counter(item.matching for item in items) == Counter(
        item.not_matching for item in items
    )


def share_answers(items: Sequence[Answered]) -> bool:
    """Whether some answer shows the persona in one question and does not show it in another.

    A preference for this answer then cancels in a draw that is balanced over it.

    Example:
        >>> wb.personas.balanced_draws.share_answers(wb.load_persona("english_sycophancy").items)
        True
    """
    return bool({item.matching for item in items} & {item.not_matching for item in items})


def least_tilted(items: Sequence[Answered], order: Sequence[int]) -> list[int]:
    """Reorder questions so that the first ones of the new order are as balanced as possible.

    The next question is always the one that makes the answers most balanced among those before it; of equal
    ones, the first in `order`. Without answers that questions share, the order stays as it is.

    Args:
        items: The questions.
        order: Positions in `items`, in the order of preference.

    Returns:
        The same positions in the new order.
    """
    counts, left, found = Counter[Hashable](), list(order), list[int]()
    while left:
        best = min(range(len(left)), key=lambda k: (tilt(counts, items[left[k]]), k))
        found.append(left.pop(best))
        counts.update({items[found[-1]].matching: 1})
        counts.subtract({items[found[-1]].not_matching: 1})
    return found


def counterbalanced_groups(items: Sequence[Answered]) -> bool:
    """Whether the questions of every group are counterbalanced."""
    return all(map(counterbalanced, _by_group(items).values()))


def balanced_within_groups_only(items: Sequence[Answered]) -> bool:
    """Whether a preference for one answer can cancel only between questions of one group.

    This is so if the questions of every group are counterbalanced, and some answer belongs to one of several
    groups.

    Example:
        >>> wb.personas.balanced_draws.balanced_within_groups_only(
        ...     wb.load_persona("suggested_sycophancy").items
        ... )
        True
    """
    groups = _by_group(items)
    owners = Counter(answer for members in groups.values() for answer in {item.matching for item in members})
    return len(groups) > 1 and min(owners.values()) == 1 and counterbalanced_groups(items)


def balanced_sets(items: Sequence[Answered]) -> list[int]:
    """Order questions so that smallest counterbalanced sets of one group follow each other.

    Groups take turns, in the order of their first questions. In a turn, a group gives the fewest questions that
    are counterbalanced together: its next question and those that cancel it.

    Args:
        items: The questions, in the order of preference. The questions of each group are counterbalanced.

    Returns:
        Positions in `items`, each once.

    Example:
        >>> items = wb.load_persona("suggested_sycophancy").items
        >>> first = [items[i] for i in wb.personas.balanced_draws.balanced_sets(items)[:2]]
        >>> first[0].matching == first[1].not_matching and first[0].group == first[1].group
        True
    """
    waiting: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        waiting.setdefault(item.group, []).append(i)
    order = list[int]()
    while waiting:
        for left in waiting.values():
            order += _balanced_set(items, left)
        waiting = {group: left for group, left in waiting.items() if left}
    return order


def _balanced_set(items: Sequence[Answered], left: list[int]) -> list[int]:
    """Remove the next counterbalanced questions from those that are left, and return them."""
    counts, found = Counter[Hashable](), list[int]()
    while left and (not found or any(counts.values())):
        best = min(range(len(left)), key=lambda k: (tilt(counts, items[left[k]]), k))
        found.append(left.pop(best))
        counts.update({items[found[-1]].matching: 1})
        counts.subtract({items[found[-1]].not_matching: 1})
    return found


def tilt(counts: Mapping[Any, int], item: Answered, group: str | None = None) -> int:
    """Return by how much a question increases the imbalance of its two answers.

    Args:
        counts: For each answer, how often it was the matching one minus how often it was not; its keys are
            (group, answer) if `group` is given.
        item: The question.
        group: The question's group, or None if answers are counted over all groups.
    """
    m, n = (
        (item.matching, item.not_matching)
        if group is None
        else ((group, item.matching), (group, item.not_matching))
    )
    return abs(counts[m] + 1) - abs(counts[m]) + abs(counts[n] - 1) - abs(counts[n])


def _by_group(items: Sequence[Answered]) -> dict[str, list[Answered]]:
    found: dict[str, list[Answered]] = {}
    for item in items:
        found.setdefault(item.group, []).append(item)
    return found
