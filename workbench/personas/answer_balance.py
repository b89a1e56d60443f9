"""Rules that ignore the question, and the score that each would have on a set of items.

Rules such as "the longer answer" or "the first letter" should be right about half of the time. Otherwise a
direction or a prompt can score well by length or letter alone. Each rule is also tried in reverse ("the
shorter answer"), and the better score counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workbench.personas.persona import Item
from workbench.text_forms import canonical, text_length

TOLERANCE_LETTERS = 0.05
TOLERANCE_LENGTH = 0.10
FEW_GROUPS = (
    60  # a test split (a fifth) has under 12: bootstrap intervals are too narrow, sign-flip tests too coarse
)
LARGE_GROUP = 0.2


def first_share(items: Sequence[Item]) -> float | None:
    """Return the fraction of items (0 to 1) whose first published option shows the persona.

    Items without a published order of the options do not count; the result is None if no item has one.
    """
    ordered = [item.matching_first for item in items if item.matching_first is not None]
    return sum(ordered) / len(ordered) if ordered else None


def longer_share(items: Sequence[Item]) -> float:
    """Return the fraction of items (0 to 1) in which the answer that shows the persona is the longer one.

    Length is counted in characters; answers of equal length count as one half.
    """
    return sum(_longer(item) for item in items) / len(items)


def letter_rule(items: Sequence[Item]) -> float | None:
    """Return the accuracy of guessing the persona's answer by its letter alone, 0.5 to 1.

    It is the accuracy of always choosing the first, or always the second, published option, whichever is
    better. The result is None if no item has a published order.
    """
    share = first_share(items)
    return None if share is None else max(share, 1 - share)


def length_rule(items: Sequence[Item]) -> float:
    """Return the accuracy of guessing the persona's answer by its length alone, 0.5 to 1.

    It is the accuracy of always choosing the longer, or always the shorter answer, whichever is better.
    """
    share = longer_share(items)
    return max(share, 1 - share)


def warnings_of(items: Sequence[Item]) -> tuple[str, ...]:
    """Return warnings about a persona's items, one line each.

    They are about answers that letter or length reveals, contradicting labels, a question group that is too
    large, and too few groups for narrow confidence intervals.
    """
    lines = []
    letter, length = letter_rule(items), length_rule(items)
    if letter is not None and letter > 0.5 + TOLERANCE_LETTERS:
        lines.append(
            f"a constant letter scores {100 * letter:.0f} % in the published order: use both orders of every item"
        )
    if length > 0.5 + TOLERANCE_LENGTH:
        side = "longer" if longer_share(items) > 0.5 else "shorter"
        lines.append(
            f"the rule 'the {side} answer matches' scores {100 * length:.0f} %: a direction may read length"
        )
    opposite = _opposite_answers(items)
    if opposite:
        first, second = opposite[0]
        lines.append(
            f"{len(opposite)} questions are there twice with their answers swapped (the first: {first.source or first.id} and "
            f"{second.source or second.id}): one label is wrong, or the context is not in the question"
        )
    sizes = Counter(item.group for item in items)
    largest, count = sizes.most_common(1)[0]
    if count > LARGE_GROUP * len(items) and len(sizes) > 1:
        lines.append(
            f"the group {largest[:40]!r} holds {100 * count / len(items):.0f} % of the items: intervals will be wide"
        )
    if len(sizes) < FEW_GROUPS:
        fifth = round(len(sizes) / 5)
        lines.append(
            f"only {len(sizes)} groups, about {fifth} in a fifth of them: intervals are wide and tests coarse"
        )
    return tuple(lines)


def _opposite_answers(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Return pairs of items with the same question in which matching and not matching answer are swapped."""
    first: dict[tuple[str, str, str], Item] = {}
    found = []
    for item in items:
        question, matching, other = (
            canonical(text) for text in (item.question, item.matching, item.not_matching)
        )
        if (question, other, matching) in first:
            found.append((first[question, other, matching], item))
        first.setdefault((question, matching, other), item)
    return found


def _longer(item: Item) -> float:
    matching, other = (text_length(answer) for answer in item.full_answers)
    return 0.5 if matching == other else float(matching > other)
