"""The class of data file formats, their registry, and functions that make items from rows."""

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
    """A format of data files, recognised by the fields of a file's first row.

    Attributes:
        name: Name in messages and documentation.
        fields: Names of fields; a row that has all of them is in this format.
        read: Function from a row and a rule that groups related questions to an item; its UserErrors name
            file, row and field.
        description: One line, without a full stop: whose format it is, and which field has the answer that
            shows the persona.
        order: Priority; a row that fits several formats is read in the one with the lowest order.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[DataRow, Grouping], Item]
    description: str
    order: int = 100

    def fits(self, row: DataRow) -> bool:
        """Whether a data row has all fields of this format."""
        return set(self.fields) <= set(row.fields)


DATA_FORMATS: Registry[DataFormat] = Registry(
    "data format", "workbench.personas.formats", lambda entry: entry.order
)


def register_format(data_format: DataFormat) -> DataFormat:
    """Register a format of data files under its name and return it."""
    return DATA_FORMATS.add(data_format.name, data_format, through=__file__)


def format_of(row: DataRow) -> DataFormat:
    """Return the data format of a row of a file, recognised by the names of its fields.

    Raises:
        UserError: No format fits; the message names the missing fields of the nearest format, or lists all
            formats.
    """
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
    """Make an item from a row of a data file whose answers are texts or letters of listed options.

    Args:
        row: A row of a data file.
        question: Name of the field with the question.
        fields: Names of two fields: with the answer that shows the persona, and with the other one.
        grouping: Function from a question and its two answers to the name of the group of related questions.
        needs_options: True if the format always lists options in the question, so that a row without them is
            an error.

    Returns:
        The item; its question does not contain the options.
    """
    read = read_answers(row, question, fields, needs_options)
    return make_item(row, read.question, read.matching, read.not_matching, read.matching_first, grouping)


def make_item(
    row: DataRow, question: str, matching: str, not_matching: str, first: bool | None, grouping: Grouping
) -> Item:
    """Make an item (a question with two answers) from the parts of a row of a data file.

    Its id is the file's name with the row's number.

    Args:
        row: The row that the item comes from.
        question: Text of the question, without options.
        matching: The answer that shows the persona.
        not_matching: The other answer.
        first: Whether the answer that shows the persona was published as the first option; None if no order
            was published.
        grouping: Function from a question and its two answers to the name of the group of related questions.

    Returns:
        The item.
    """
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
