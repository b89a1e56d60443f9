"""Read and write the files of a run directory through their pydantic models (`workbench.schema`)."""

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
    """Write the contents of one of a run's JSON files, given as a pydantic model, to disk atomically."""
    write_json(path, file.to_json())


def read_run_file(path: str | Path, kind: type[FileKind]) -> FileKind:
    """Read a JSON file of a run into the pydantic model of that file.

    Args:
        path: The file.
        kind: The pydantic model, such as `ComparisonFile`.

    Returns:
        The file, migrated to this version's schema.

    Raises:
        UserError: The file is missing, damaged, of an unknown schema version (the message names the workbench
            version that reads it), or has a wrong field (the message names it).

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
    """Read a JSON file of a run into its pydantic model, but leave out optional fields with wrong values.

    Texts may contain lone halves of surrogate pairs.

    Args:
        path: The file.
        kind: The pydantic model, such as `ComparisonFile`.
        limit: Largest size in bytes.

    Returns:
        The file, and the reason for each field that was left out.
    """
    return kind.salvaged(read_entry(path, limit, whole=False))


def read_entry(path: str | Path, limit: int = 256 * MEBIBYTE, whole: bool = True) -> dict[str, Any]:
    """Read the content of a JSON file of a run, migrated to this version's schema.

    Args:
        path: The file.
        limit: Largest size in bytes.
        whole: Whether text with a lone half of a surrogate pair is refused.

    Raises:
        UserError: The file cannot be read, is not JSON, or is of an unknown schema version.
    """
    text = read_text(path, limit)
    value = parse_json(text, str(path))
    if whole and "\\ud" in text.lower():  # maybe half of a surrogate pair, which cannot be printed or hashed
        require_whole_text(json.dumps(value, ensure_ascii=False), str(path))
    return migrated(Path(path).name, value, str(path), _writer(Path(path)))


def write_table(path: str | Path, frame: pd.DataFrame, kind: type[TableRow]) -> None:
    """Write a table of a run as Parquet.

    Args:
        path: The file.
        frame: The table.
        kind: Pydantic model of a row, whose fields are the columns.

    Raises:
        ValueError: The columns are not those of `kind`, or the first row does not fit.
    """
    kind.check_columns(frame.columns)
    for row in frame.head(1).to_dict("records"):
        kind.model_validate(
            {name: None if value is pd.NaT or value is pd.NA else value for name, value in row.items()}
        )
    write_parquet(path, frame)


def read_table(path: str | Path, kind: type[TableRow]) -> pd.DataFrame:
    """Read a table of a run. Columns that an older version named otherwise get their present names.

    Args:
        path: The Parquet file.
        kind: Pydantic model of a row, whose fields are the columns.

    Raises:
        UserError: The file cannot be read, or lacks a required column.
    """
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
    """Read a run's timings.json; return an empty `TimingsFile` if it is missing or damaged.

    The file is used only to show times.
    """
    try:
        return salvage_run_file(directory / "timings.json", TimingsFile)[0]
    except (UserError, ValidationError):
        return TimingsFile()


def _writer(path: Path) -> str | None:
    """Version of the workbench that made the run, from the manifest next to the file or above it."""
    for directory in path.parents[:2]:
        try:
            content = json.loads((directory / "manifest.json").read_bytes())
            return str(content["versions"][PACKAGE])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None
