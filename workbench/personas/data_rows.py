"""Rows of a data file in JSON, JSON Lines, CSV or YAML, each with its place in the file.

A format's reader requests fields of a row by name. A field that is missing or has the wrong type raises a
UserError that names file, row (or line) and field. Files are not trusted: size, encoding, depth and repeated
keys are checked, YAML may hold plain values only (no tags, no aliases), and nothing in a file is executed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.runs import parse_json_lines, read_json, read_text, read_yaml
from workbench.text_forms import join_surrogates, require_whole_text, unify_line_ends

SUFFIXES = (".json", ".jsonl", ".csv", ".yaml", ".yml")
LIMIT_BYTES = 64 << 20
LIMIT_TEXT = 200_000


@dataclass(frozen=True)
class DataRow:
    """One row of a data file.

    Attributes:
        fields: Values by field name.
        file: Path of the file.
        number: Number of the row; the first is 1.
        place: Place of the row for messages, such as "row 3" or "line 7".
    """

    fields: Mapping[str, Any]
    file: Path
    number: int
    place: str

    @property
    def where(self) -> str:
        """File and place of the row for error messages, such as "data/pairs.csv, row 3 (line 4)"."""
        return f"{self.file}, {self.place}"

    @property
    def source(self) -> str:
        """The name of the file (without its directory) and the number of the row, such as "pairs.csv:3"."""
        return f"{self.file.name}:{self.number}"

    def text(self, name: str) -> str:
        """Return the text of a required field, stripped of outer white space, with line feeds as line ends.

        Raises:
            UserError: The field is missing or empty, is no text, is too long, or holds damaged characters.
        """
        if name not in self.fields:
            raise UserError(
                f"{self.where}: the field {name!r} is missing; found {', '.join(map(str, self.fields)) or 'no field'}"
            )
        return self._checked(name, self.fields[name])

    def optional(self, name: str) -> str | None:
        """Return the text of a field, or None if the field is absent or empty."""
        value = self.fields.get(name)
        return None if value is None or value == "" else self._checked(name, value)

    def _checked(self, name: str, value: Any) -> str:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
            raise UserError(
                f"{self.where}, field {name}: expected text, found {type(value).__name__} {str(value)[:40]!r}{hint}"
            )
        if not value.strip():
            raise UserError(f"{self.where}, field {name}: expected text, found an empty one")
        if len(value) > LIMIT_TEXT:
            raise UserError(
                f"{self.where}, field {name}: expected at most {LIMIT_TEXT} characters, found {len(value)}"
            )
        bad = next(
            (
                ch
                for ch in value
                if ch == "\N{REPLACEMENT CHARACTER}" or (ord(ch) < 32 and ch not in "\n\r\t")
            ),
            None,
        )
        if bad is not None:
            raise UserError(
                f"{self.where}, field {name}: holds the character U+{ord(bad):04X}: the text was damaged on its way"
            )
        return require_whole_text(
            unify_line_ends(join_surrogates(value)), f"{self.where}, field {name}"
        ).strip()


def read_rows(path: str | Path) -> list[DataRow]:
    """Read the rows of a data file; the file's suffix determines the format.

    Args:
        path: A file that ends in .json, .jsonl, .csv, .yaml or .yml.

    Returns:
        At least one row.

    Raises:
        UserError: The suffix is unknown, there is no row, or the syntax is broken.
    """
    path = Path(path)
    readers = {
        ".json": _json_rows,
        ".jsonl": _jsonl_rows,
        ".csv": _csv_rows,
        ".yaml": _yaml_rows,
        ".yml": _yaml_rows,
    }
    if path.suffix.lower() not in readers:
        raise UserError(
            f"{path}: expected a file that ends in {', '.join(SUFFIXES)}, found {path.suffix or 'no suffix'!r}"
        )
    rows = list(readers[path.suffix.lower()](path))
    if not rows:
        raise UserError(f"{path}: expected at least one row, found none")
    return rows


def _json_rows(path: Path) -> Iterator[DataRow]:
    yield from _listed(path, read_json(path, limit=LIMIT_BYTES))


def _yaml_rows(path: Path) -> Iterator[DataRow]:
    yield from _listed(path, read_yaml(path, LIMIT_BYTES))


def _listed(path: Path, value: Any) -> Iterator[DataRow]:
    """Yield the rows of a list, or of an object with one list of rows ({"metadata": {}, "pairs": []})."""
    if isinstance(value, dict):
        lists = [
            entry
            for entry in value.values()
            if isinstance(entry, list) and entry and isinstance(entry[0], dict)
        ]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of rows, found {type(value).__name__}")
    for number, fields in enumerate(value, start=1):
        yield _row(path, fields, number, f"row {number}")


def _jsonl_rows(path: Path) -> Iterator[DataRow]:
    for number, (line, fields) in enumerate(
        parse_json_lines(read_text(path, LIMIT_BYTES), str(path)), start=1
    ):
        yield _row(path, fields, number, f"line {line}")


def _csv_rows(path: Path) -> Iterator[DataRow]:
    reader = csv.reader(io.StringIO(read_text(path, LIMIT_BYTES), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) != len(header) or not header:
            raise UserError(
                f"{path}, line 1: expected a header of different names, found {', '.join(header)[:200] or 'none'}"
            )
        begin, number = reader.line_num + 1, 0
        for cells in reader:
            line, begin = begin, reader.line_num + 1
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                raise UserError(f"{path}, line {line}: expected {len(header)} cells, found {len(cells)}")
            yield _row(path, dict(zip(header, cells, strict=True)), number, f"row {number} (line {line})")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: expected CSV: {error}") from error


def _row(path: Path, fields: Any, number: int, place: str) -> DataRow:
    if not isinstance(fields, dict):
        raise UserError(f"{path}, {place}: expected fields with names, found {type(fields).__name__}")
    return DataRow(fields, path, number, place)
