"""Assign whole groups of questions to the four splits (train, search, selection, test).

Questions of one group (the same claim in many biographies, one fiction, one question) share what a method can
learn, so that splitting by row would leak. Whole groups are assigned:

1. Groups are ordered by sha256("seed:group"): the same on every machine, and independent of the order of the
   rows.
2. Each group goes to the split that is furthest below its fraction of the rows; on ties, to the earlier
   split.
3. A group that would be more than a quarter of a split (and is more than twice as large as the mean group)
   does not go there, because that one cluster would determine every interval. Such groups are assigned first,
   if necessary to the largest split.
4. When only as many groups are left as there are empty splits, the empty splits get them, so that every split
   has at least one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from workbench.errors import UserError

SPLIT_NAMES = ("train", "search", "selection", "test")


def assign_groups(
    sizes: Mapping[str, int], fractions: Sequence[float], seed: int, what: str = "this data"
) -> dict[str, int]:
    """Assign whole question groups to splits so that the splits have the requested sizes.

    Args:
        sizes: Number of rows of each group.
        fractions: Fraction of the rows that each split shall have; positive, with a sum of 1.
        seed: Seed of the order in which groups are assigned.
        what: Name of the data, for messages.

    Returns:
        Mapping from each group to the index of its split.

    Raises:
        UserError: The fractions are not positive or do not sum to 1, one group is all of the data, or there
            are fewer groups than splits.
    """
    _check(sizes, fractions, what)
    rows = sum(sizes.values())
    limits = [max(fraction * rows / 4, 2 * rows / len(sizes)) for fraction in fractions]
    have = [0.0] * len(fractions)
    assigned: dict[str, int] = {}
    order = sorted(sizes, key=lambda group: (sizes[group] <= min(limits), shuffle_key(seed, group)))
    for number, group in enumerate(order):
        empty = [i for i, count in enumerate(have) if count == 0]
        open_to = empty if len(order) - number <= len(empty) else _open_to(sizes[group], limits)
        chosen = max(open_to, key=lambda i: (fractions[i] * rows - have[i], -i))
        assigned[group] = chosen
        have[chosen] += sizes[group]
    return assigned


def shuffle_key(seed: int, name: str) -> bytes:
    """Return a sort key of a name, so that sorting by it shuffles names by seed.

    It does not depend on the platform, the Python version or the other names.
    """
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _open_to(size: int, limits: Sequence[float]) -> list[int]:
    """Return the splits that a group of this size would not dominate; if there is none, the largest split."""
    return [i for i, limit in enumerate(limits) if size <= limit] or [limits.index(max(limits))]


def _check(sizes: Mapping[str, int], fractions: Sequence[float], what: str) -> None:
    if any(not fraction > 0 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"split fractions must be positive and sum to 1, found {tuple(fractions)}")
    need = f"a split by group needs at least {len(fractions)} groups"
    if len(sizes) == 1:
        group, rows = next(iter(sizes.items()))
        raise UserError(f"{what}: the group {group[:60]!r} fills all {rows} rows; {need}")
    if len(sizes) < len(fractions):
        raise UserError(f"{what}: found {len(sizes)} groups in {sum(sizes.values())} rows; {need}")
