"""Read data files of any known format into items; `formats/` has one file per format.

Published files write the options into the question. They are removed, so that both orders can be presented,
and `matching_first` keeps the published order. A file NAME_groups.json next to NAME.json (a list of objects
with "group", one per row) says which rows belong together; without it, a rule does (`question_groups`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.errors import UserError
from workbench.personas.data_rows import DataRow, read_rows
from workbench.personas.formats.data_format import format_of
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping, by_claim, by_question, join_same_questions
from workbench.text_forms import canonical

_MISREAD = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd"
)  # UTF-8 bytes taken for Latin-1 or Windows-1252

_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,6}|#x[\da-fA-F]{1,5});")


@dataclass(frozen=True)
class FileItems:
    """The items of a data file.

    Attributes:
        items: The items.
        warnings: What the reader noticed in the file, one line each.
    """

    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()


def read_items(path: str | Path, grouping: Grouping = by_question) -> FileItems:
    """Read the items of a data file of any known format and group them.

    The groups come from the rows, from the file NAME_groups.json next to it, or from the rule `grouping`.
    Groups that have a question in common are joined.

    Args:
        path: The data file.
        grouping: Function from a question and its two options to the name of the group of related questions.

    Returns:
        The items, and warnings about damaged text or missing groups.

    Raises:
        UserError: The file is wrong; the message names file, row and field.
    """
    path = Path(path)
    rows = read_rows(path)
    items, warnings = items_of(rows, grouping), list(_damaged(rows))
    groups = _groups_next_to(path)
    if groups is not None:
        if len(groups) != len(items):
            raise UserError(f"{path}: {len(items)} rows, but the groups file next to it has {len(groups)}")
        lost = [item.source for item, group in zip(items, groups, strict=True) if group is None]
        warnings += (
            [f"no group in the groups file for {', '.join(lost)}: grouped by the question"] if lost else []
        )
        items = tuple(replace(i, group=group or i.group) for i, group in zip(items, groups, strict=True))
    return FileItems(items if grouping is by_claim else join_same_questions(items), tuple(warnings))


def items_of(rows: Sequence[DataRow], grouping: Grouping = by_question) -> tuple[Item, ...]:
    """Convert the rows of a data file to items, all in the format that the first row has.

    Groups that have a question in common are not joined yet.
    """
    read = format_of(rows[0]).read
    return tuple(read(row, grouping) for row in rows)


def _groups_next_to(path: Path) -> list[str | None] | None:
    """Return the groups in NAME_groups.json next to NAME.json, with None for a row without a group.

    The result is None if that file does not exist.
    """
    beside = path.with_name(f"{path.stem}_groups.json")
    groups = (row.optional("group") for row in read_rows(beside)) if beside.is_file() else None
    return None if groups is None else [group and canonical(group) for group in groups]


def _damaged(rows: Sequence[DataRow]) -> Iterator[str]:
    """Yield warnings about text that was read in a wrong encoding ("donâ€™t") or holds HTML entities."""
    for pattern, what in (
        (_MISREAD, "text read in a wrong encoding"),
        (_ENTITY, "characters of HTML such as &amp;"),
    ):
        found = [
            row.source
            for row in rows
            if any(isinstance(v, str) and pattern.search(v) for v in row.fields.values())
        ]
        if found:
            yield f"{len(found)} rows hold {what} (the first is {found[0]}): see the original"
