"""Base classes of all files of a run directory: strict when written, lenient when read.

1. A writer fills in the model's fields; a name that the model does not have is an error.
2. A reader ignores unknown keys (a newer minor version may add some) and uses defaults for missing optional
   fields.
3. NaN and infinities, which JSON does not have, become missing values (None).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workbench.schema.schema_version import SCHEMA


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A number; None for a missing one, and for NaN and infinities.
Number = Annotated[float | None, BeforeValidator(_finite)]
#: The lower and the upper end of an interval.
Ends = tuple[Number, Number]


class Entry(BaseModel):
    """Base class of records inside a run's JSON files and tables: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFile(Entry):
    """Base class of the pydantic models of a run directory's JSON files.

    Example:
        >>> FrontierFile(searches={}).to_json()
        {'schema': 1, 'searches': {}}
    """

    #: Whether a reader ignores or refuses keys that the model does not have.
    unknown_keys: ClassVar[Literal["ignore", "forbid"]] = "ignore"

    schema_: int = Field(default=SCHEMA, alias="schema", ge=SCHEMA, le=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """Return the file's content as plain values, keys in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Make the pydantic model from the content of a JSON file that has the present schema version.

        Args:
            entry: The content, as read from JSON.

        Raises:
            ValidationError: A field is missing or has a wrong value (pydantic's error).
        """
        return cls.model_validate(entry, extra=cls.unknown_keys)

    @classmethod
    def salvaged(cls, entry: dict[str, Any]) -> tuple[Self, dict[str, str]]:
        """Make the pydantic model from a JSON file's content, without optional fields that have wrong values.

        Args:
            entry: The content, as read from JSON.

        Returns:
            The file, and the place and reason for each field that was left out.

        Raises:
            ValidationError: A required field is missing or has a wrong value.
        """
        lost: dict[str, str] = {}
        while True:
            try:
                return cls.from_json(entry), lost
            except ValidationError as error:
                first = error.errors()[0]
                name = str(first["loc"][0]) if first["loc"] else ""
                if not isinstance(entry, dict) or name not in entry or name in lost or _required(cls, name):
                    raise
                lost[name] = f"{'.'.join(map(str, first['loc'][1:])) or name}: {first['msg']}"
                entry = {key: value for key, value in entry.items() if key != name}


class TableRow(Entry):
    """Base class of the rows of a table (Parquet) of a run directory; the fields are the table's columns."""

    @classmethod
    def needed(cls) -> list[str]:
        """Return the names of the required columns, without which the table cannot be read."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]

    @classmethod
    def check_columns(cls, columns: Iterable[str]) -> None:
        """Raise ValueError if the columns of a table to be written are not exactly the fields of this class."""
        found, expected = list(columns), list(cls.model_fields)
        if set(found) != set(expected):
            raise ValueError(f"expected the columns {', '.join(expected)}, found {', '.join(found)}")


def _required(kind: type[BaseModel], name: str) -> bool:
    field = kind.model_fields.get(name)
    return field is not None and field.is_required()
