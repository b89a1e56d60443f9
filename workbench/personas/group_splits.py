"""Splits by group: which of the four splits a question group goes to.

Questions of one group (the same claim under many biographies, one fiction, one question) share what is to be
learned, so a row-wise split leaks. Groups are dealt whole:

1. Groups are put in the order of sha256("seed:group"): the same on every machine, untouched by the order of
   the rows.
2. Each in turn goes to the split that is furthest below its fraction of the rows (ties: the earlier split).
3. A group that would be more than a quarter of a split (and more than twice as large as the mean group) does
   not go there: as one cluster it would decide every interval. Such groups are dealt first, in the end to the
   largest split.
4. When as many groups are left as splits are empty, the empty ones are served, so that every split has at
   least one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from workbench.errors import UserError

SPLIT_NAMES = ("train", "search", "selection", "test")


def assign_groups(
    sizes: Mapping[str, int], fractions: Sequence[float], seed: int, what: str = "this data"
) -> dict[str, int]:
    """The index of the split for each group.

    `sizes`: rows of each group; `fractions`: wanted fraction of the rows, summing to 1.

    Raises UserError for fractions that are not positive or do not sum to 1, for a group that is the whole of
    the data, and for fewer groups than splits; `what` names the data in the message.
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
    """A sort key that shuffles names by seed, independent of platform, Python version and the other names."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _open_to(size: int, limits: Sequence[float]) -> list[int]:
    """The splits that a group of this size may go to: those that it does not dominate, else the largest."""
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
