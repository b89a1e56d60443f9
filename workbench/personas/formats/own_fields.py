"""Format of a user's own files: the fields question, matching and not_matching, optionally group and id."""

from __future__ import annotations

from dataclasses import replace

from workbench.errors import UserError
from workbench.personas.answer_options import OPTION_FIELDS
from workbench.personas.data_rows import DataRow
from workbench.personas.formats.data_format import DataFormat, answered_item, register_format
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping

FIELDS = ("question", "matching", "not_matching")
OWN_FIELDS = (*FIELDS, "group", "id")


def _read(row: DataRow, grouping: Grouping) -> Item:
    unknown = [str(name) for name in row.fields if name not in (*OWN_FIELDS, *OPTION_FIELDS)]
    if unknown:
        raise UserError(f"{row.where}: unknown field {unknown[0]!r}; known are {', '.join(OWN_FIELDS)}")
    item = answered_item(row, FIELDS[0], FIELDS[1:], grouping)
    own_id = row.optional("id")
    return replace(
        item, group=row.optional("group") or item.group, id=own_id or item.id, numbered=own_id is None
    )


register_format(DataFormat("own_fields", FIELDS, _read, "one's own: the answers as named", order=40))
