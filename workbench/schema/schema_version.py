"""The version of the run directory's files, and how files of earlier versions become files of this one.

1. Every JSON file has `schema`, a whole number. A change that readers outside would notice raises it, for all
   files at once.
2. `MIGRATIONS[n]` turns the content of a file of version n into that of version n + 1; a file is migrated
   step by step.
3. Tables (Parquet) have no number of their own; a renamed column is listed in `RENAMED_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from workbench.errors import UserError

#: The version that is written.
SCHEMA = 1

#: By version: a function of the file's name in the run directory and its content. Empty, since version 1 is
#: the first.
MIGRATIONS: dict[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}

#: Columns by the name they had in runs made before 0.1.
RENAMED_COLUMNS: Mapping[str, str] = {"best_fluency": "best_cross_entropy"}

PACKAGE = "persona-workbench"


class OtherSchemaError(UserError):
    """A file of a schema version that this version does not read."""


def migrated(name: str, entry: Any, where: str, writer: str | None = None) -> dict[str, Any]:
    """The content of a file as this version has it.

    Args:
        name: the file's name in the run directory, such as "comparison.json".
        entry: its content as read from JSON.
        where: its path, for the error.
        writer: the version of the workbench that wrote the run, where the manifest says so.

    Returns:
        `entry` itself, or its migrated copy.

    Raises:
        OtherSchemaError: one line that says which version of the workbench reads the file.
        UserError: for what has no schema number.
    """
    found = entry.get("schema") if isinstance(entry, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise UserError(f"{where}: expected schema {SCHEMA}, found {found!r}; another kind of file")
    while found != SCHEMA:
        if found not in MIGRATIONS:
            raise OtherSchemaError(_other_version(where, entry["schema"], writer))
        entry, found = MIGRATIONS[found](name, entry) | {"schema": found + 1}, found + 1
    return entry


def _other_version(where: str, found: int, writer: str | None) -> str:
    age = "a newer" if found > SCHEMA else "an older"
    reader = (
        f"{PACKAGE} {writer}, with which the run was made, reads it"
        if writer
        else f"{age} {PACKAGE} reads it"
    )
    return f"{where}: expected schema {SCHEMA}, found {found}: this is {PACKAGE} {_own_version()}; {reader}"


def _own_version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "(not installed)"
