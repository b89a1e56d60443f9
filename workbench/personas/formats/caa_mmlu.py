"""CAA's A/B form of MMLU: a row has a prompt with two options, and the correct and the incorrect option."""

from __future__ import annotations

from dataclasses import replace

from workbench.personas.data_rows import DataRow
from workbench.personas.formats.data_format import DataFormat, answered_item, register_format
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping

FIELDS = ("prompt", "correct", "incorrect")


def _read(row: DataRow, grouping: Grouping) -> Item:
    item = answered_item(row, FIELDS[0], FIELDS[1:], grouping, needs_options=True)
    return replace(item, group=row.optional("category") or item.group)


register_format(
    DataFormat(
        "caa_mmlu",
        FIELDS,
        _read,
        "CAA's A/B form of MMLU: the correct option matches; groups are categories",
        order=20,
    )
)
