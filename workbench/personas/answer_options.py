"""Find the options that a question lists and the option that each answer names by letter.

Published files write the options into the question, and the answers are letters. The workbench presents both
orders and scores texts, so it needs the question without options and the text of each option. A letter is
never an answer's text: a row whose answer is a letter and whose options are not found is refused.

1. Options on separate lines (`options_on_lines`): "(A) ...", "[A] ...", "A) ...", "**A** ...", "A - ...", in
   any script (`option_labels`), after "Choices:", "Options:" or nothing.
2. Options within one line (`options_in_line`): tried only if the answers are letters, and accepted only if
   there is a single way to read them.
3. Options in a separate field (`choices` or `options`), or in front of the answers themselves ("(A) quick
   wins").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError
from workbench.personas.data_rows import DataRow
from workbench.personas.option_labels import (
    BRACKETED,
    LINE_MARKS,
    TEXT_MARKS,
    certain_label,
    fold_name,
    followers,
    is_single_name,
    label_of,
    names_options,
    place_of,
    starts_alphabet,
)
from workbench.text_forms import canonical

OPTION_FIELDS = ("choices", "options")
_HEADING = re.compile(
    r"\s*(?:\b(?:choices|options|answers|answer choices)\s*:|\bchoose one\s*:?)\s*\Z", re.IGNORECASE
)
_ANSWER_CUE = re.compile(r"\s*\n\s*(?:the )?(?:best )?answer\s*(?:is)?\s*:?\s*\(?\s*\Z", re.IGNORECASE)
#: Matches a paragraph or a question after the last option.
_MORE_TEXT = re.compile(r"\n[ \t]*\n|\n[^\n]*\?\s*\Z")
#: Matches a last line that requests an answer. Options after "Choices:" and "(A)" may have several paragraphs
#: (as in CAA's hallucination rows), but no such line.
_ASKS = re.compile(
    r"\n[^\n]*(?:\?|\b(?:answer|choose|select|pick|reply|respond)\b[^\n]{0,60})\s*\Z", re.IGNORECASE
)
_BULLET = r"(?:[-*+>\u2022][ \t]+)?"
_BETWEEN = re.compile(r"\s*[,;/|]?(?P<joined>\s+(?:or|and))?\s*\Z")


@dataclass(frozen=True)
class Options:
    """A question without its two options, and the options.

    Attributes:
        question: Text of the question.
        texts: Texts of the two options, in the order of their names.
        names: Names of the two options in capital letters, such as "A" and "B" (see `fold_name`).
    """

    question: str
    texts: tuple[str, str]
    names: tuple[str, str] = ("A", "B")


@dataclass(frozen=True)
class Listed:
    """Options found in a text of a question.

    Attributes:
        question: The text before the options.
        names: Names of the options, such as "A", in the text's order.
        texts: Texts of the options, in the same order.
        letter_in_brackets: Whether the labels look like "(A)", which never labels a list of other things.
        headed: Whether a line such as "Choices:" precedes the options.
    """

    question: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    letter_in_brackets: bool
    headed: bool


@dataclass(frozen=True)
class AnswerOptions:
    """The content of a data row: the question without options, and the texts of its two answers.

    Attributes:
        question: Text of the question.
        matching: Text of the answer that shows the persona.
        not_matching: Text of the other answer.
        matching_first: Whether the answer that shows the persona was published as the first option; None if
            the row shows no order.
    """

    question: str
    matching: str
    not_matching: str
    matching_first: bool | None


def read_answers(
    row: DataRow, question_field: str, fields: tuple[str, str], needs_options: bool = False
) -> AnswerOptions:
    """Read the question and the texts of both answers from a row.

    Args:
        row: A row of a data file.
        question_field: Name of the field with the question, with or without options in it.
        fields: Names of two fields: with the answer that shows the persona, and with the other one. Each
            holds a letter, a text, or a letter with its text.
        needs_options: True if the format always has options, so that a row without them is an error.

    Returns:
        The question without options, and the answers' texts.

    Raises:
        UserError: An answer is a letter but no option has it, both answers name one option, or an answer
            contradicts the option that it names. The message names file, row and field.
    """
    question = row.text(question_field)
    given = (row.text(fields[0]), row.text(fields[1]))
    options = _options_of_row(row, question_field, question, given)
    if options is None:
        if needs_options:
            raise UserError(
                f"{row.where}, field {question_field}: expected two options (A) and (B) after the question, found none"
            )
        return _without_options(row, question_field, question, fields, given)
    sides = [_side(row, name, text, options) for name, text in zip(fields, given, strict=True)]
    if sides[0] == sides[1]:
        raise UserError(f"{row.where}, field {fields[1]}: names the same option as {fields[0]}")
    return AnswerOptions(options.question, options.texts[sides[0]], options.texts[sides[1]], sides[0] == 0)


def options_on_lines(text: str) -> Listed | None:
    r"""Find the options of a question that are listed one per line, such as "A. Yes".

    The result is None if no line looks like the label of a first option in any of the known layouts.

    Example:
        >>> options_on_lines("Tea?\\n\\nChoices:\\n A. Yes\\n B. No").texts
        ('Yes', 'No')
    """
    for mark in LINE_MARKS:
        parts = re.split(rf"(?:\A|\n)[ \t]*{_BULLET}{mark}", text)
        names, texts = [fold_name(name) for name in parts[1::2]], parts[2::2]
        in_brackets = mark in BRACKETED
        if (
            names
            and starts_alphabet(names[0])
            and len(set(names)) == len(names)
            and (in_brackets or len(names) > 1)
        ):
            texts[-1] = _ANSWER_CUE.sub("", texts[-1])
            return _listed(parts[0], names, texts, in_brackets and not names[0].isdigit())
    return None


def options_in_line(text: str) -> list[Listed]:
    """Find two options inside running text, such as "Tea? (A) Yes (B) No" or "Tea? A) Yes or B) No".

    Args:
        text: A question with its options.

    Returns:
        Every possible reading; several if the text is ambiguous, none if no options are found.
    """
    found = []
    for mark in TEXT_MARKS:
        marks = [(m, fold_name(m["name"])) for m in re.finditer(rf"(?:(?<=\s)|(?<=[?.:!;,])|\A){mark}", text)]
        for first, name in marks:
            for second, following in marks:
                if following in followers(name) and second.start() > first.end():
                    texts = _texts_between(text, first.end(), second.start(), second.end())
                    found.append(_listed(text[: first.start()], [name, following], texts, True))
    return [reading for reading in found if reading.question and all(reading.texts)]


def _texts_between(text: str, begin: int, end: int, second: int) -> list[str]:
    """Return the two options' texts.

    The question mark at the end of "(A) Yes or (B) No?" belongs to the question.
    """
    joined = _BETWEEN.search(text, begin, end)
    first = text[begin : joined.start()] if joined else text[begin:end]
    other = _ANSWER_CUE.sub("", text[second:]).strip()
    if joined and joined["joined"] and other.endswith("?") and not first.rstrip().endswith("?"):
        other = other[:-1]
    return [first, other]


def _listed(before: str, names: Sequence[str], texts: Sequence[str], letter_in_brackets: bool) -> Listed:
    question = _HEADING.sub("", before).strip()
    headed = bool(_HEADING.search(before))
    return Listed(question, tuple(names), tuple(text.strip() for text in texts), letter_in_brackets, headed)


def _options_of_row(row: DataRow, field: str, question: str, given: tuple[str, str]) -> Options | None:
    """Find the options of a row in a separate field, on lines, or within a line."""
    own = _options_field(row)
    if own is not None:
        return _with_own_field(row, field, question, own)
    named = all(label is not None for label in map(label_of, given)) or any(
        certain_label(text) for text in given
    )
    read = options_on_lines(question)
    if read is not None and (named or read.letter_in_brackets or _same_texts(read.texts, given)):
        return _checked(row, field, read)
    readings = [read for read in options_in_line(question) if named or _same_texts(read.texts, given)]
    if len(readings) > 1:
        raise UserError(
            f"{row.where}, field {field}: the options can be read in {len(readings)} ways; put each on a line of its own"
        )
    return _checked(row, field, readings[0]) if readings else None


def _with_own_field(row: DataRow, field: str, question: str, own: tuple[str, str]) -> Options:
    """Combine the options of a separate field with the question.

    If the question lists the same texts, they are removed from it; if it lists them in another order, the row
    is refused.
    """
    on_lines = options_on_lines(question)
    read = next(
        (
            read
            for read in (*([on_lines] if on_lines else []), *options_in_line(question))
            if _same_texts(read.texts, own)
        ),
        None,
    )
    if read is None:
        return Options(question, own)
    if [canonical(text) for text in read.texts] != [canonical(text) for text in own]:
        raise UserError(
            f"{row.where}, field {field}: lists the options in another order than their own field"
        )
    return Options(read.question, own)


def _checked(row: DataRow, field: str, read: Listed) -> Options:
    if len(read.names) != 2 or not names_options(read.names) or not all(read.texts) or not read.question:
        found = ", ".join(f"({name})" for name in read.names)
        raise UserError(
            f"{row.where}, field {field}: expected a question and two options (A) and (B) with text, found {found}"
        )
    if (_ASKS if read.headed and read.letter_in_brackets else _MORE_TEXT).search(read.texts[1]):
        raise UserError(
            f"{row.where}, field {field}: text follows the options; the options come last, found {read.texts[1][-60:]!r}"
        )
    return Options(read.question, (read.texts[0], read.texts[1]), (read.names[0], read.names[1]))


def _same_texts(texts: Sequence[str], given: tuple[str, str]) -> bool:
    return {canonical(text) for text in texts} == {canonical(text) for text in given}


def _options_field(row: DataRow) -> tuple[str, str] | None:
    name = next((name for name in OPTION_FIELDS if isinstance(row.fields.get(name), list | dict)), None)
    if name is None:
        return None
    value: Any = row.fields[name]
    if isinstance(value, dict) and not names_options([fold_name(str(key)) for key in value]):
        raise UserError(
            f"{row.where}, field {name}: expected the options A and B, found {', '.join(map(str, value))[:60]!r}"
        )
    entries: Sequence[Any] = (
        value
        if isinstance(value, list)
        else [value[key] for key in sorted(value, key=lambda key: fold_name(str(key)))]
    )
    if len(entries) != 2 or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise UserError(
            f"{row.where}, field {name}: expected the texts of two options, found {str(value)[:60]!r}"
        )
    labels = [label_of(entry) for entry in entries]
    named = [label[0] for label in labels if label is not None and label[1]]
    if len(named) == 2 and names_options(named) and not starts_alphabet(named[0]):
        raise UserError(
            f"{row.where}, field {name}: the option {named[0]} comes before {named[1]}; put them in order"
        )
    own_labels = all(
        label is not None and label[0] in name for label, name in zip(labels, ("A1", "B2"), strict=True)
    )
    texts = [
        label[1] if own_labels and label else entry.strip()
        for label, entry in zip(labels, entries, strict=True)
    ]
    if not all(texts):
        raise UserError(
            f"{row.where}, field {name}: expected the texts of two options, found only their letters"
        )
    return texts[0], texts[1]


def _without_options(
    row: DataRow, question_field: str, question: str, fields: tuple[str, str], given: tuple[str, str]
) -> AnswerOptions:
    """Read answers that are texts, or texts after the letters A and B.

    Refuse an answer that is only a letter.
    """
    labels = [certain_label(text) for text in given]
    for name, label, text in zip(fields, labels, given, strict=True):
        if label is not None and not label[1]:
            raise UserError(
                f"{row.where}, field {name}: {text!r} names an option, but no options were found in the field {question_field}; "
                "write each on a line of its own, such as '(A) Yes'"
            )
    if labels[0] is None and labels[1] is None and not _bare_names(question, given):
        return AnswerOptions(question, given[0], given[1], None)
    if labels[0] is None or labels[1] is None or {labels[0][0], labels[1][0]} not in ({"A", "B"}, {"1", "2"}):
        raise UserError(
            f"{row.where}, fields {fields[0]} and {fields[1]}: expected two texts, or two texts after (A) and (B), "
            f"found {given[0][:60]!r} and {given[1][:60]!r} and no options in the field {question_field}"
        )
    return AnswerOptions(question, labels[0][1], labels[1][1], labels[0][0] in "A1")


def _bare_names(question: str, given: tuple[str, str]) -> bool:
    """Whether the answers are two names of options and nothing else.

    That is the first two letters of an alphabet, or two numbers with which lines of the question begin.
    """
    if not all(map(is_single_name, given)):
        return False
    names = [text.strip() for text in given]
    if names_options([fold_name(name) for name in names]) and all(
        len(name) == 1 and not name.isdigit() for name in names
    ):
        return True
    return all(
        re.search(rf"(?m)^\W{{0,4}}{re.escape(name)}(?:\W|$)", question, re.IGNORECASE) for name in names
    )


def _side(row: DataRow, name: str, text: str, options: Options) -> int:
    """Return the option that an answer means, 0 or 1, by its letter or its text."""
    texts = [canonical(option) for option in options.texts]
    if canonical(text) in texts:
        return texts.index(canonical(text))
    label = label_of(text)
    side = place_of(label[0], options.names) if label else None
    if label is None or side is None:
        raise UserError(
            f"{row.where}, field {name}: expected '(A)' or '(B)' or the text of an option, found {text[:60]!r}"
        )
    if label[1] and canonical(label[1]) != texts[side]:
        raise UserError(
            f"{row.where}, field {name}: {text[:60]!r} is not the option ({options.names[side]}) {options.texts[side][:60]!r}"
        )
    return side
