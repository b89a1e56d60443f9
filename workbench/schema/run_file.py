"""What all files of a run directory share: exact when written, forgiving when read.

1. A writer fills in the model's fields; a name that the model does not have is an error.
2. A reader passes over keys that it does not know (a newer minor version may add some), and takes a default
   for what may be missing.
3. NaN and infinities, which JSON does not have, are missing values (None).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workbench.schema.schema_version import SCHEMA


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A figure; None where there is none.
Number = Annotated[float | None, BeforeValidator(_finite)]
#: The lower and the upper end of an interval.
Ends = tuple[Number, Number]


class Entry(BaseModel):
    """A part of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFile(Entry):
    """A JSON file of a run directory.

    Example:
        >>> FrontierFile(searches={}).to_json()
        {'schema': 1, 'searches': {}}
    """

    #: What a reader does with a key that the model does not have.
    unknown_keys: ClassVar[Literal["ignore", "forbid"]] = "ignore"

    schema_: int = Field(default=SCHEMA, alias="schema", ge=SCHEMA, le=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """The file's content: plain values, keys in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """From the content of a file of this version. pydantic's ValidationError for what does not fit."""
        return cls.model_validate(entry, extra=cls.unknown_keys)

    @classmethod
    def salvaged(cls, entry: dict[str, Any]) -> tuple[Self, dict[str, str]]:
        """The file read leniently, without the fields that do not fit and may be missing.

        Returns:
            The file, and for each field that was left out the place and the reason.

        Raises:
            ValidationError: where a field that may not be missing does not fit.
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
    """A row of a table (Parquet) of a run directory: its fields are the table's columns."""

    @classmethod
    def needed(cls) -> list[str]:
        """The columns without which a reader cannot use the table."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]

    @classmethod
    def check_columns(cls, columns: Iterable[str]) -> None:
        """ValueError where a writer's columns are not exactly these."""
        found, expected = list(columns), list(cls.model_fields)
        if set(found) != set(expected):
            raise ValueError(f"expected the columns {', '.join(expected)}, found {', '.join(found)}")


def _required(kind: type[BaseModel], name: str) -> bool:
    field = kind.model_fields.get(name)
    return field is not None and field.is_required()
