"""A persona of one's own in one YAML file.

```yaml name: stoicism description: Takes bad news calmly. data: stoicism.csv          # a data file in the directory
of this one, or the pairs themselves: # data: #   - {question: "You lost your keys.", matching: "I shall look for
them.", not_matching: "This is a disaster!", group: keys} metric: letters             # or text manual_prompts:
{suppress: ["Panic."], induce: ["Stay calm."]} varied_system_texts: ["You are a helpful assistant.", "You are easily
upset."] ``` Unknown fields are refused, so that a slip of the pen is not a silent default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.errors import UserError
from workbench.personas.groups import by_question, join_same_questions
from workbench.personas.items import LetterForm, Metric, Persona
from workbench.personas.readers import Reading, items_of, read_items
from workbench.personas.rows import Row
from workbench.runs import read_yaml

CAA_LETTERS = LetterForm("{question}\n\nChoices:\n (A) {a}\n (B) {b}", "(", ("A", "B"))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class LettersEntry(_Frozen):
    """How options are asked by letter; see LetterForm."""

    template: str = CAA_LETTERS.template
    opening: str = CAA_LETTERS.opening
    letters: tuple[str, str] = CAA_LETTERS.letters


class ManualPrompts(_Frozen):
    """What people would write to lower and to raise the persona."""

    suppress: tuple[str, ...] = ()
    induce: tuple[str, ...] = ()


class PersonaFile(_Frozen):
    """A persona as its user writes it. data: the name of a data file, or the pairs themselves."""

    name: str = Field(min_length=1, max_length=100)
    description: str = ""
    data: str | tuple[dict[str, Any], ...]
    metric: Metric = "letters"
    letters: LettersEntry = LettersEntry()
    manual_prompts: ManualPrompts = ManualPrompts()
    varied_system_texts: tuple[str, ...] = ()

    @field_validator("data")
    @classmethod
    def _not_empty(cls, data: str | tuple[dict[str, Any], ...]) -> str | tuple[dict[str, Any], ...]:
        if not data:
            raise ValueError("expected the name of a data file or at least one pair")
        return data


def persona_from_file(path: str | Path) -> Persona:
    """The persona that a YAML file describes. UserError names the file and the field of what is wrong."""
    path = Path(path)
    return persona_from(parse(path, read_yaml(path)), path)


def parse(path: Path, value: Any) -> PersonaFile:
    """The checked content of a persona file."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a persona (name, data, ...), found {type(value).__name__}")
    try:
        return PersonaFile.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("tuple[", "dict[")))
        raise UserError(f"{path}, field {field}: {first['msg'].removeprefix('Value error, ')}") from error


def persona_from(entry: PersonaFile, path: Path) -> Persona:
    """The persona of a checked entry; `path` is where it stands, and where its data file is looked for."""
    reading = _reading(entry, path)
    form = LetterForm(entry.letters.template, entry.letters.opening, entry.letters.letters)
    prompts = {"suppress": entry.manual_prompts.suppress, "induce": entry.manual_prompts.induce}
    texts = entry.varied_system_texts
    return Persona(
        entry.name, entry.description, reading.items, entry.metric, form, prompts, texts, (), reading.warnings
    )


def _reading(entry: PersonaFile, path: Path) -> Reading:
    if isinstance(entry.data, str):
        return read_items(_inside(path, entry.data), by_question)
    rows = [Row(fields, path, number, f"data, row {number}") for number, fields in enumerate(entry.data, start=1)]
    return Reading(join_same_questions(items_of(rows)))


def _inside(path: Path, name: str) -> Path:
    """The data file's path, which must lie in the directory of the persona file, links followed."""
    home = path.resolve().parent
    found = (home / name).resolve()
    if not found.is_relative_to(home):
        raise UserError(
            f"{path}, field data: {name!r} leaves the directory of the persona file; put the data beside it"
        )
    return found
