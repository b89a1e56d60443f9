"""JSON schemas of the files that a user writes (study, sweep, persona), for editors and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each kind of file, with a description of every field.

    Example:
        >>> sorted(file_schemas())
        ['persona', 'study', 'sweep']
    """
    from workbench.attribution import ESTIMATORS
    from workbench.conditions import STUDY_CONDITIONS
    from workbench.directions import DIRECTION_METHODS
    from workbench.personas.persona_file import PersonaFile
    from workbench.search import SEARCH_METHODS
    from workbench.study.study_settings import Study
    from workbench.sweep.sweep_settings import Sweep

    found = {"study": _schema(Study), "sweep": _schema(Sweep), "persona": _schema(PersonaFile)}
    parts = found["study"]["$defs"]
    found["study"]["properties"]["conditions"]["items"]["enum"] = list(STUDY_CONDITIONS)
    parts["SearchSettings"]["properties"]["method"]["enum"] = list(SEARCH_METHODS)
    parts["DirectionSettings"]["properties"]["methods"]["anyOf"][0]["items"]["enum"] = list(DIRECTION_METHODS)
    parts["AttributionSettings"]["properties"]["estimators"]["items"]["enum"] = list(ESTIMATORS)
    return found


def write_schemas(directory: Path) -> list[Path]:
    """Write each schema to `directory/NAME.schema.json` and return the files."""
    from workbench.runs import write_json

    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / f"{name}.schema.json" for name in file_schemas()]
    for file, schema in zip(files, file_schemas().values(), strict=True):
        write_json(file, schema)
    return files


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": DIALECT} | model.model_json_schema(by_alias=True)
