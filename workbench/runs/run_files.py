"""Reading and writing the files of a run directory through their models (`workbench.schema`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from workbench.errors import UserError
from workbench.runs.atomic_writing import write_json, write_parquet
from workbench.runs.safe_reading import MEBIBYTE, read_parquet, read_text
from workbench.runs.strict_json import parse_json
from workbench.schema import RunFile, TableRow, TimingsFile, migrated
from workbench.schema.schema_version import PACKAGE, RENAMED_COLUMNS
from workbench.text_forms import require_whole_text

FileKind = TypeVar("FileKind", bound=RunFile)


def write_run_file(path: str | Path, file: RunFile) -> None:
    """A JSON file of a run, whole or not at all."""
    write_json(path, file.to_json())


def read_run_file(path: str | Path, kind: type[FileKind]) -> FileKind:
    """A JSON file of a run.

    Args:
        path: the file.
        kind: its model, such as `ComparisonFile`.

    Returns:
        The file as this version has it.

    Raises:
        UserError: one line for a file that is missing, not whole, of another schema version (it says which
            version of the workbench reads it), or out of shape (it names the field).

    Example:
        >>> read_run_file("runs/demo-001/comparison.json", ComparisonFile).persona
        'sycophancy'
    """
    try:
        return kind.from_json(read_entry(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}, field {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def salvage_run_file(
    path: str | Path, kind: type[FileKind], limit: int = 256 * MEBIBYTE
) -> tuple[FileKind, dict[str, str]]:
    """The same, without the fields that do not fit and may be missing; and why each of them was left out.

    Half characters stay: pages show them by their code points.
    """
    return kind.salvaged(read_entry(path, limit, whole=False))


def read_entry(path: str | Path, limit: int = 256 * MEBIBYTE, whole: bool = True) -> dict[str, Any]:
    """The content of a JSON file of a run, migrated to this version's schema. whole: half characters are a UserError."""
    text = read_text(path, limit)
    value = parse_json(text, str(path))
    if (
        whole and "\\ud" in text.lower()
    ):  # an escape that may be half of a character, which nothing can print or hash
        require_whole_text(json.dumps(value, ensure_ascii=False), str(path))
    return migrated(Path(path).name, value, str(path), _writer(Path(path)))


def write_table(path: str | Path, frame: pd.DataFrame, kind: type[TableRow]) -> None:
    """A table of a run. ValueError where its columns are not those of `kind`, or its first row does not fit."""
    kind.check_columns(frame.columns)
    for row in frame.head(1).to_dict("records"):
        kind.model_validate(
            {name: None if value is pd.NaT or value is pd.NA else value for name, value in row.items()}
        )
    write_parquet(path, frame)


def read_table(path: str | Path, kind: type[TableRow]) -> pd.DataFrame:
    """A table of a run with at least the columns that `kind` needs, under the names of this version."""
    frame = read_parquet(path)
    frame = frame.rename(
        columns={old: new for old, new in RENAMED_COLUMNS.items() if new not in frame.columns}
    )
    missing = [name for name in kind.needed() if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path}: expected the columns {', '.join(kind.needed())}, found none named {', '.join(missing)}"
        )
    return frame


def read_timings(directory: Path) -> TimingsFile:
    """timings.json of a run; an empty one where it is missing or damaged, since nothing but tables of times depends on it."""
    try:
        return salvage_run_file(directory / "timings.json", TimingsFile)[0]
    except (UserError, ValidationError):
        return TimingsFile()


def _writer(path: Path) -> str | None:
    """The version of the workbench that made the run, from the manifest next to the file or above it."""
    for directory in path.parents[:2]:
        try:
            content = json.loads((directory / "manifest.json").read_bytes())
            return str(content["versions"][PACKAGE])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None
