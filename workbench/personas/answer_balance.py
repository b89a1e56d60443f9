"""Rules that know nothing of the question, and how they would score on a set of items.

A rule that says "the longer answer" or "the first letter" must stay near one half; where it does not, a
direction or a prompt can do well by length or letter alone. Both ways of each rule are tried and the better
one counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workbench.personas.persona import Item
from workbench.text_forms import canonical, text_length

TOLERANCE_LETTERS = 0.05
TOLERANCE_LENGTH = 0.10
FEW_GROUPS = (
    60  # a fifth of them is less than 12: a cluster bootstrap under-covers, a sign-flip test is coarse
)
LARGE_GROUP = 0.2


def first_share(items: Sequence[Item]) -> float | None:
    """The fraction of items whose matching option was published as the first one; None where no order was published."""
    ordered = [item.matching_first for item in items if item.matching_first is not None]
    return sum(ordered) / len(ordered) if ordered else None


def longer_share(items: Sequence[Item]) -> float:
    """The fraction of items whose matching answer has more characters than the other (equal lengths count one half)."""
    return sum(_longer(item) for item in items) / len(items)


def letter_rule(items: Sequence[Item]) -> float | None:
    """The score of the better constant letter in the published order; None where no order was published."""
    share = first_share(items)
    return None if share is None else max(share, 1 - share)


def length_rule(items: Sequence[Item]) -> float:
    """The score of "the longer answer" or "the shorter answer", whichever is right more often."""
    share = longer_share(items)
    return max(share, 1 - share)


def warnings_of(items: Sequence[Item]) -> tuple[str, ...]:
    """One line for each thing about the items that a study should know: letters, length, groups."""
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
    """Pairs of items with one question, whose answers are the same the other way round."""
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
