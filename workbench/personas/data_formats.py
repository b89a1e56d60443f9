"""Published formats and one's own, read into items: one function a format, chosen by the fields of the first row.

| format | fields | matching, not matching | |---|---|---| | CAA (github nrimsky/CAA), Anthropic's evals (github
anthropics/evals) | question with its options, answer_matching_behavior, answer_not_matching_behavior | the texts of
the options that these name | | CAA's A/B form of MMLU | prompt with its options, correct, incorrect, category | the
correct, the incorrect option | | TruthfulQA (github sylinrl/TruthfulQA) | Question, Best Answer, Incorrect Answers |
the incorrect answer nearest in length to the best one, the best one | | one's own | question, matching, not_matching;
group, id if wanted | as named |

Published files write the options into the question; they are taken out, so that both orders can be asked, and
`matching_first` keeps the published order. A file NAME_groups.json beside NAME.json (one object with "group" a row)
says which rows belong together; without it a rule does (`groups`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.errors import UserError
from workbench.personas.answer_options import OPTION_FIELDS, read_answers
from workbench.personas.data_rows import DataRow, read_rows
from workbench.personas.persona import Item
from workbench.personas.question_groups import Grouping, by_claim, by_question, join_same_questions
from workbench.text_forms import canonical, text_length

OWN_FIELDS = ("question", "matching", "not_matching", "group", "id")
_MISREAD = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd"
)  # UTF-8 bytes taken for Latin-1 or Windows-1252


@dataclass(frozen=True)
class DataQuestion:
    """A TruthfulQA question with all of its answers, as the multiple-choice metrics need them."""

    question: str
    best: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    category: str
    source: str


@dataclass(frozen=True)
class FormatReader:
    """The items of a file, and what the reader noticed in it (one line each)."""

    items: tuple[Item, ...]
    warnings: tuple[str, ...] = ()


def read_items(path: str | Path, grouping: Grouping = by_question) -> FormatReader:
    """The items of a data file of any known format, grouped by the file's own groups, the groups file beside it, or
    `grouping`; groups with a question in common are joined. UserError names file, row and field of what is wrong."""
    path = Path(path)
    rows = read_rows(path)
    items, warnings = items_of(rows, grouping), list(_damaged(rows))
    groups = _groups_beside(path)
    if groups is not None:
        if len(groups) != len(items):
            raise UserError(f"{path}: {len(items)} rows, but the groups file beside it has {len(groups)}")
        lost = [item.source for item, group in zip(items, groups, strict=True) if group is None]
        warnings += [f"no group in the groups file for {', '.join(lost)}: grouped by the question"] if lost else []
        items = tuple(replace(i, group=group or i.group) for i, group in zip(items, groups, strict=True))
    return FormatReader(items if grouping is by_claim else join_same_questions(items), tuple(warnings))


def items_of(rows: Sequence[DataRow], grouping: Grouping = by_question) -> tuple[Item, ...]:
    """The items of rows that all have the format of the first one, not yet joined by question."""
    read = _format_of(rows[0])
    return tuple(read(row, grouping) for row in rows)


def read_truthfulqa(path: str | Path) -> tuple[DataQuestion, ...]:
    """All answers of a TruthfulQA file, for MC1, MC2 and the share of questions with a likelier incorrect answer."""
    return tuple(_truthful(row) for row in read_rows(path))


def _format_of(row: DataRow) -> Callable[[DataRow, Grouping], Item]:
    formats: dict[tuple[str, ...], Callable[[DataRow, Grouping], Item]] = {
        ("question", "answer_matching_behavior", "answer_not_matching_behavior"): _behaviour_item,
        ("prompt", "correct", "incorrect"): _correctness_item,
        ("Question", "Best Answer", "Incorrect Answers"): _truthful_item,
        ("question", "matching", "not_matching"): _own_item,
    }
    for fields, read in formats.items():
        if set(fields) <= set(row.fields):
            return read
    nearest = max(formats, key=lambda fields: len(set(fields) & set(row.fields)))
    found = ", ".join(map(str, row.fields)) or "none"
    if len(set(nearest) & set(row.fields)) >= 2:
        missing = ", ".join(name for name in nearest if name not in row.fields)
        raise UserError(f"{row.where}: the field {missing} is missing of {', '.join(nearest)}; found {found}")
    known = "; ".join(", ".join(fields) for fields in formats)
    raise UserError(f"{row.where}: expected the fields of a format ({known}), found {found}")


def _behaviour_item(row: DataRow, grouping: Grouping) -> Item:
    return _answered_item(row, "question", ("answer_matching_behavior", "answer_not_matching_behavior"), grouping)


def _correctness_item(row: DataRow, grouping: Grouping) -> Item:
    item = _answered_item(row, "prompt", ("correct", "incorrect"), grouping, needs_options=True)
    return replace(item, group=row.optional("category") or item.group)


def _answered_item(row: DataRow, question: str, fields: tuple[str, str], grouping: Grouping, needs_options: bool = False) -> Item:
    read = read_answers(row, question, fields, needs_options)
    return _item(row, read.question, read.matching, read.not_matching, read.matching_first, grouping)


def _truthful_item(row: DataRow, grouping: Grouping) -> Item:
    entry = _truthful(row)
    wrong = min(entry.incorrect, key=lambda answer: abs(text_length(answer) - text_length(entry.best)))
    return _item(row, entry.question, wrong, entry.best, None, grouping)


def _own_item(row: DataRow, grouping: Grouping) -> Item:
    unknown = [str(name) for name in row.fields if name not in (*OWN_FIELDS, *OPTION_FIELDS)]
    if unknown:
        raise UserError(f"{row.where}: unknown field {unknown[0]!r}; known are {', '.join(OWN_FIELDS)}")
    item = _answered_item(row, "question", ("matching", "not_matching"), grouping)
    own_id = row.optional("id")
    return replace(item, group=row.optional("group") or item.group, id=own_id or item.id, numbered=own_id is None)


def _item(row: DataRow, question: str, matching: str, not_matching: str, first: bool | None, grouping: Grouping) -> Item:
    group = grouping(question, (matching, not_matching))  # a canonical name, the same in every Unicode form
    number = f"{row.file.stem}-{row.number:04d}"
    try:
        return Item(number, question, matching, not_matching, group, matching_first=first, source=row.source, numbered=True)
    except UserError as error:
        raise UserError(f"{row.file.parent / str(error)}") from error


def _truthful(row: DataRow) -> DataQuestion:
    return DataQuestion(
        question=row.text("Question"),
        best=row.text("Best Answer"),
        correct=_listed(row, "Correct Answers") if row.optional("Correct Answers") else (row.text("Best Answer"),),
        incorrect=_listed(row, "Incorrect Answers"),
        category=row.optional("Category") or "",
        source=row.source,
    )


def _listed(row: DataRow, name: str) -> tuple[str, ...]:
    """Answers that a semicolon separates."""
    answers = tuple(answer.strip() for answer in row.text(name).split(";") if answer.strip())
    if not answers:
        raise UserError(f"{row.where}, field {name}: expected answers with ';' between, found none")
    return answers


def _groups_beside(path: Path) -> list[str | None] | None:
    """The groups in NAME_groups.json beside NAME.json (None for a row without one); None where there is no such
    file."""
    beside = path.with_name(f"{path.stem}_groups.json")
    groups = (row.optional("group") for row in read_rows(beside)) if beside.is_file() else None
    return None if groups is None else [group and canonical(group) for group in groups]


def _damaged(rows: Sequence[DataRow]) -> Iterator[str]:
    """Text that was written in one encoding and read in another, such as "donâ€™t"."""
    found = [row.source for row in rows if any(isinstance(v, str) and _MISREAD.search(v) for v in row.fields.values())]
    if found:
        yield f"{len(found)} rows hold text read in a wrong encoding (the first is {found[0]}): see the original"
