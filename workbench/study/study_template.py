"""Template of a study file with a comment on every setting, from the descriptions of the settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workbench.study.study_settings import Study

WIDTH = 110


def study_template(study: Study) -> str:
    """Return the YAML text of a study, with a comment before each setting that describes it.

    Args:
        study: The settings that the file contains.

    Returns:
        A study file: `Study.from_yaml` of this text equals `study`.

    Example:
        >>> from workbench.study import Study
        >>> print(study_template(Study()).splitlines()[0])
        # A study: `workbench explain FILE` says what it does, `workbench run FILE --out DIR` runs it.
    """
    head = "# A study: `workbench explain FILE` says what it does, `workbench run FILE --out DIR` runs it."
    return "\n".join([head, "", *_section(study, 0)]) + "\n"


def _section(values: BaseModel, depth: int) -> Iterator[str]:
    margin = "  " * depth
    for name, field in type(values).model_fields.items():
        value = getattr(values, name)
        key = field.alias or name
        yield from (
            f"{margin}# {line}" for line in textwrap.wrap(_about(value, field), WIDTH - len(margin) - 2)
        )
        if isinstance(value, BaseModel):
            yield f"{margin}{key}:"
            yield from _section(value, depth + 1)
        else:
            dumped = values.model_dump(mode="json", include={name})[name]
            yield f"{margin}{key}: {_inline(dumped)}"


def _about(value: object, field: FieldInfo) -> str:
    if field.description:
        return field.description
    return (type(value).__doc__ or "").partition("\n")[0] if isinstance(value, BaseModel) else ""


def _inline(value: object) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def settings_table() -> str:
    """Return a Markdown table of every setting of a study, with default and description, for docs/study.md.

    Example:
        >>> print(settings_table().splitlines()[2])
        | `schema` | `1` | Version of this format. |
    """
    rows = [f"| `{name}` | `{default}` | {about} |" for name, default, about in _rows(Study(), "")]
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows])


def _rows(values: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in type(values).model_fields.items():
        value = getattr(values, name)
        key = prefix + (field.alias or name)
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{key}.")
            continue
        about = " ".join(_about(value, field).split())
        yield key, _inline(values.model_dump(mode="json", include={name})[name]), about.replace("|", "\\|")
