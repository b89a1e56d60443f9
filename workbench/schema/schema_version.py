"""The schema version of run directories, and the migration of files of earlier versions.

1. Every JSON file has `schema`, a whole number. A change that external readers would notice increases it, for
   all files at once.
2. `MIGRATIONS[n]` converts the content of a file of version n to version n + 1; files are migrated step by
   step.
3. Tables (Parquet) have no version; renamed columns are listed in `RENAMED_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from workbench.errors import UserError

#: Schema version of the files that are written.
SCHEMA = 1

#: Migration functions by version; their arguments are the file's name in the run directory and its content.
#: Empty, since version 1 is the first.
MIGRATIONS: dict[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}

#: Names of columns in runs made before 0.1 -> today's names.
RENAMED_COLUMNS: Mapping[str, str] = {"best_fluency": "best_cross_entropy"}

PACKAGE = "persona-workbench"


class OtherSchemaError(UserError):
    """A file has a schema version that this version of the workbench cannot read."""


def migrated(name: str, entry: Any, where: str, writer: str | None = None) -> dict[str, Any]:
    """Convert the content of a run's JSON file to the present schema version.

    Args:
        name: The file's name in the run directory, such as "comparison.json".
        entry: Its content as read from JSON.
        where: Path of the file, for the error message.
        writer: Version of the workbench that wrote the run, if the manifest says so.

    Returns:
        `entry` itself, or its migrated copy.

    Raises:
        OtherSchemaError: The version is unknown; the message names the workbench version that reads the file.
        UserError: The content has no schema number.
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
