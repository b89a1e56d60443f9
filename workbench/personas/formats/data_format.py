"""What a format of data files is, and the items that its rows are read into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.errors import UserError
from workbench.personas.answer_options import read_answers
from workbench.personas.data_rows import DataRow
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping
from workbench.registry import Registry


@dataclass(frozen=True)
class DataFormat:
    """A format, recognised by the fields of a file's first row.

    Attributes:
        name: The name in messages and documentation.
        fields: A row that has all of these is of this format.
        read: From a row and a rule for groups to the item; UserError names file, row and field of what is
            wrong.
        description: Whose format it is and which answer is the matching one, in one line without a full stop.
        order: A row that fits several formats is of the one with the lowest.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[DataRow, Grouping], Item]
    description: str
    order: int = 100

    def fits(self, row: DataRow) -> bool:
        """True for a row with all of the format's fields."""
        return set(self.fields) <= set(row.fields)


DATA_FORMATS: Registry[DataFormat] = Registry(
    "data format", "workbench.personas.formats", lambda entry: entry.order
)


def register_format(data_format: DataFormat) -> DataFormat:
    """Registers a format under its name."""
    return DATA_FORMATS.add(data_format.name, data_format, through=__file__)


def format_of(row: DataRow) -> DataFormat:
    """The format of a row; UserError names what is missing of the nearest one, or lists all."""
    found = next((entry for entry in DATA_FORMATS.values() if entry.fits(row)), None)
    if found is not None:
        return found
    known = [entry.fields for entry in DATA_FORMATS.values()]
    nearest = max(known, key=lambda fields: len(set(fields) & set(row.fields)))
    names = ", ".join(map(str, row.fields)) or "none"
    if len(set(nearest) & set(row.fields)) >= 2:
        missing = ", ".join(name for name in nearest if name not in row.fields)
        raise UserError(f"{row.where}: the field {missing} is missing of {', '.join(nearest)}; found {names}")
    formats = "; ".join(", ".join(fields) for fields in known)
    raise UserError(f"{row.where}: expected the fields of a format ({formats}), found {names}")


def answered_item(
    row: DataRow, question: str, fields: tuple[str, str], grouping: Grouping, needs_options: bool = False
) -> Item:
    """An item whose answers are texts, or options that the question lists."""
    read = read_answers(row, question, fields, needs_options)
    return make_item(row, read.question, read.matching, read.not_matching, read.matching_first, grouping)


def make_item(
    row: DataRow, question: str, matching: str, not_matching: str, first: bool | None, grouping: Grouping
) -> Item:
    """An item numbered after its row, in the group that the rule gives it."""
    group = grouping(question, (matching, not_matching))  # a canonical name, the same in every Unicode form
    number = f"{row.file.stem}-{row.number:04d}"
    try:
        return Item(
            number,
            question,
            matching,
            not_matching,
            group,
            matching_first=first,
            source=row.source,
            numbered=True,
        )
    except UserError as error:
        raise UserError(f"{row.file.parent / str(error)}") from error
