"""Define a persona in one YAML file.

```yaml
name: stoicism
description: Takes bad news calmly.
data: stoicism.csv          # a data file in this file's directory, or the pairs themselves:
# data:
#   - {question: "You lost your keys.", matching: "I shall look.", not_matching: "A disaster!", group: keys}
metric: letters             # or text
manual_prompts: {suppress: ["Panic."], induce: ["Stay calm."]}
varied_system_texts: ["You are a helpful assistant.", "You are easily upset."]
true_statements: ["Ice floats on water."]        # what the model should still agree with
```
Unknown fields are refused, so that a misspelt field does not silently get its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workbench.errors import UserError
from workbench.personas.data_rows import DataRow
from workbench.personas.item_files import FileItems, items_of, read_items
from workbench.personas.known_personas import agreement_items
from workbench.personas.persona import LetterForm, Metric, Normalization, Persona
from workbench.personas.question_groups import by_question, join_same_questions
from workbench.personas.trait_file import TraitFile
from workbench.runs import read_yaml, resolved
from workbench.text_forms import unify_line_ends

CAA_LETTERS = LetterForm("{question}\n\nChoices:\n (A) {a}\n (B) {b}", "(", ("A", "B"))


class PersonaFileEntry(BaseModel):
    """Base class of the parts of a persona file; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True
    )


class LettersEntry(PersonaFileEntry):
    """How a question shows its two options with letters."""

    template: str = CAA_LETTERS.template
    """Text with {question}, {a} and {b}."""
    opening: str = CAA_LETTERS.opening
    """First characters of the model's turn, before the letter."""
    letters: tuple[str, str] = CAA_LETTERS.letters
    """The two option letters."""


class ManualPromptsEntry(PersonaFileEntry):
    """Prompts that a person would write to suppress or induce the persona."""

    suppress: tuple[str, ...] = ()
    """Prompts meant to lower the persona."""
    induce: tuple[str, ...] = ()
    """Prompts meant to raise the persona."""


class OppositeInstructions(PersonaFileEntry):
    """Two opposite system texts: one requests the persona, the other its opposite."""

    induce: str = Field(min_length=1)
    """System text that requests the persona."""
    suppress: str = Field(min_length=1)
    """System text that requests the opposite."""


class PersonaFile(PersonaFileEntry):
    """A persona defined by its user: its data, or opposite system texts with questions for a model to answer.

    The data are a file or pairs of answers.
    """

    name: str = Field(min_length=1, max_length=100)
    """Name in studies, tables and reports."""
    description: str = ""
    """One sentence about the behaviour."""
    data: str | tuple[dict[str, Any], ...] | None = None
    """Data file in the same directory, or the pairs themselves: question, matching, not_matching, group."""
    opposites: tuple[OppositeInstructions, ...] = ()
    """Pairs of opposite system texts."""
    questions: tuple[str, ...] = ()
    """Questions that a model answers under each system text of `opposites`."""
    metric: Metric = "letters"
    """How an answer is scored: by its option letter (letters) or by its whole text (text)."""
    normalization: Normalization = "mean"
    """How token log-probabilities of a whole answer are combined: sum, mean, character (per character), pmi."""
    letters: LettersEntry = LettersEntry()
    manual_prompts: ManualPromptsEntry = ManualPromptsEntry()
    varied_system_texts: tuple[str, ...] = ()
    """System texts of many kinds; a direction must predict their effects."""
    true_statements: tuple[str, ...] = ()
    """Statements that everybody knows to be true: agreement with them is measured next to every effect."""

    @model_validator(mode="after")
    def _one_source(self) -> PersonaFile:
        asked = bool(self.opposites and self.questions)
        if bool(self.data) == asked or bool(self.opposites) != bool(self.questions):
            raise ValueError("expected either data (a file's name or pairs) or opposites with questions")
        return self


def persona_from_file(path: str | Path) -> Persona:
    """Load the persona that a YAML file defines.

    Args:
        path: The persona file.

    Returns:
        The persona.

    Raises:
        UserError: The file is wrong; the message names file and field.
    """
    path = Path(path)
    return persona_from(parse(path, read_yaml(path)), path)


def trait_from_file(path: str | Path) -> TraitFile:
    """Read opposite system texts and questions, which a model is to answer, from a YAML file.

    Args:
        path: A persona file with `opposites` and `questions`.

    Returns:
        The opposite system texts with the questions.

    Raises:
        UserError: The file is wrong, or it has data instead of opposite system texts.
    """
    path = Path(path)
    entry = parse(path, read_yaml(path))
    if not entry.opposites:
        raise UserError(
            f"{path}, field opposites: expected pairs of system texts; this persona has data of its own"
        )
    pairs = tuple((pair.induce, pair.suppress) for pair in entry.opposites)
    return TraitFile(entry.name, pairs, entry.questions)


def parse(path: Path, value: Any) -> PersonaFile:
    """Check the content of a persona file.

    Args:
        path: Path of the file, for messages.
        value: The content of the file, as parsed from YAML.

    Returns:
        The checked content.

    Raises:
        UserError: A field is unknown or wrong; the message names file and field.
    """
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a persona (name, data, ...), found {type(value).__name__}")
    try:
        return PersonaFile.model_validate(_with_line_feeds(value))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("tuple[", "dict[")))
        where = f"{path}, field {field}" if field else str(path)
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def _with_line_feeds(value: Any) -> Any:
    """Return the value with line feeds as the line ends of all its texts."""
    if isinstance(value, dict):
        return {name: _with_line_feeds(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_with_line_feeds(entry) for entry in value]
    return unify_line_ends(value) if isinstance(value, str) else value


def persona_from(entry: PersonaFile, path: Path = Path("persona.yaml")) -> Persona:
    """Make the persona of a checked persona file.

    Args:
        entry: The content of the file.
        path: Path of the file; its data file is looked for in the same directory.

    Returns:
        The persona.
    """
    reading = _reading(entry, path)
    form = LetterForm(entry.letters.template, entry.letters.opening, entry.letters.letters)
    prompts = {"suppress": entry.manual_prompts.suppress, "induce": entry.manual_prompts.induce}
    texts, true = (
        entry.varied_system_texts,
        agreement_items([one.strip().rstrip(".") for one in entry.true_statements]),
    )
    return Persona(
        entry.name,
        entry.description,
        reading.items,
        entry.metric,
        form,
        prompts,
        texts,
        true,
        reading.warnings,
        entry.normalization,
    )


def _reading(entry: PersonaFile, path: Path) -> FileItems:
    if isinstance(entry.data, str):
        return read_items(_inside(path, entry.data), by_question)
    if entry.data is None:
        raise UserError(f"{path} has no answers yet: use trait_from_file(...).persona(answer) with a model")
    rows = [
        DataRow(fields, path, number, f"data, row {number}")
        for number, fields in enumerate(entry.data, start=1)
    ]
    return FileItems(join_same_questions(items_of(rows)))


def _inside(path: Path, name: str) -> Path:
    """Return the data file's path, which must be in the persona file's directory after links are followed."""
    home = resolved(path).parent
    found = resolved(home / name)
    if not found.is_relative_to(home):
        raise UserError(
            f"{path}, field data: {name!r} leaves the directory of the persona file; put the data next to it"
        )
    return found
