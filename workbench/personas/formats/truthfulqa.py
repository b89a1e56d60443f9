"""Format of TruthfulQA (github sylinrl/TruthfulQA).

The matching answer is the incorrect one whose length is nearest to the best answer's; the best answer is the
not matching one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UserError
from workbench.personas.data_rows import DataRow, read_rows
from workbench.personas.formats.data_format import DataFormat, make_item, register_format
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping
from workbench.text_forms import text_length

FIELDS = ("Question", "Best Answer", "Incorrect Answers")


@dataclass(frozen=True)
class DataQuestion:
    """A TruthfulQA question with all of its answers, as its multiple-choice metrics need them.

    Attributes:
        question: Text of the question.
        best: The best answer.
        correct: All correct answers.
        incorrect: All incorrect answers.
        category: TruthfulQA's category; empty if the row has none.
        source: Where the question comes from, as "file:row".
    """

    question: str
    best: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    category: str
    source: str


def read_truthfulqa(path: str | Path) -> tuple[DataQuestion, ...]:
    """Read the questions of a TruthfulQA file with all of their answers.

    They are needed for MC1, MC2 and the fraction of questions with a likelier incorrect answer.

    Args:
        path: The file.

    Returns:
        The questions, in the order of the rows.

    Raises:
        UserError: A field is missing or wrong; the message names file, row and field.
    """
    return tuple(_question(row) for row in read_rows(path))


def _read(row: DataRow, grouping: Grouping) -> Item:
    entry = _question(row)
    wrong = min(entry.incorrect, key=lambda answer: abs(text_length(answer) - text_length(entry.best)))
    return make_item(row, entry.question, wrong, entry.best, None, grouping)


def _question(row: DataRow) -> DataQuestion:
    return DataQuestion(
        question=row.text("Question"),
        best=row.text("Best Answer"),
        correct=_listed(row, "Correct Answers")
        if row.optional("Correct Answers")
        else (row.text("Best Answer"),),
        incorrect=_listed(row, "Incorrect Answers"),
        category=row.optional("Category") or "",
        source=row.source,
    )


def _listed(row: DataRow, name: str) -> tuple[str, ...]:
    """Split the answers in a field at semicolons."""
    answers = tuple(answer.strip() for answer in row.text(name).split(";") if answer.strip())
    if not answers:
        raise UserError(f"{row.where}, field {name}: expected answers with ';' between, found none")
    return answers


register_format(
    DataFormat(
        "truthfulqa",
        FIELDS,
        _read,
        "TruthfulQA: the incorrect answer nearest in length to the best one, the best one",
        order=30,
    )
)
