"""A sweep: many studies, said in a few lines.

1. What all studies share: `study` (a study's file) with the settings of `base` laid over it.
2. Variants of it: each entry of `studies` is a mapping of settings to values; each name in `ablations` means
   a few such entries (paper_ablations.py), each changing one thing. Without either there is one variant, the
   shared study itself.
3. Each variant is taken at every point of `grid`: the product of its settings' values.

A setting is written with dots, as it is in a study's file (`search.options.length`). Short names: model,
layer, method, length.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import UserError
from workbench.runs import parse_yaml, read_text, resolved
from workbench.study import Study
from workbench.study.study_presets import demo_study
from workbench.study.study_settings import Sign
from workbench.sweep.paper_ablations import ABLATIONS

#: Short names of the settings that sweeps vary most.
SHORT = {
    "model": "model.name",
    "layer": "directions.layers",
    "method": "search.method",
    "length": "search.options.length",
}


class Sweep(BaseModel):
    """Many studies in one file: a shared study, its variants, and a grid of settings.

    Attributes:
        name: Of the sweep's directory.
        study: File of the shared study; None: the demo's.
        base: Settings that all studies share.
        studies: Variants, each a set of settings.
        ablations: Names of the paper's ablations.
        grid: Values for each setting; all combinations are run.
        limit: At most so many studies.
        study_seconds: Limit of each study's wall-clock time.

    Example:
        >>> len(wb.Sweep(grid={"seed": (0, 1), "persona": ("sycophancy", "hallucination")}).expand())
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    """Version of this format."""
    name: str = Field(default="sweep", max_length=100, pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$")
    """Name of the sweep and of its directory."""
    study: str | None = None
    """Study file that all studies share, relative to the sweep file; null: the default study."""
    base: dict[str, Any] = {}
    """Settings that replace those of the shared study; dotted names such as search.budget are allowed."""
    studies: tuple[dict[str, Any], ...] = ()
    """Variants: one mapping of settings each."""
    ablations: tuple[str, ...] = ()
    """Named ablations of the paper: layer, length, latents, fluency, random_direction, ..."""
    grid: dict[str, tuple[Any, ...]] = {}
    """Setting -> values; every variant is run at every point of the product."""
    limit: int = Field(default=10_000, ge=1)
    """The most studies that the sweep may have."""
    study_seconds: float | None = Field(default=None, gt=0, le=1e9)
    """Wall-clock seconds that each study may take; one that takes longer is stopped and listed as failed, to be resumed. null: no limit."""

    def to_yaml(self) -> str:
        """The sweep as its file says it, with every default."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )

    @classmethod
    def from_yaml(cls, text: str, source: str = "sweep") -> Sweep:
        """The sweep that a YAML text describes; UserError names the source and the field."""
        content = parse_yaml(text, source)
        if not isinstance(content, dict):
            raise UserError(
                f"{source}: expected a mapping with study, base, studies, ablations or grid, found {type(content).__name__}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{source}, field {'.'.join(map(str, first['loc']))}: {first['msg']} (found {first.get('input')!r})"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """The sweep in a YAML file, named after it where it has no name; a relative `study` is taken from the file's directory."""
        path = Path(path)
        sweep = cls.from_yaml(read_text(path), str(path))
        changes: dict[str, Any] = {} if "name" in sweep.model_fields_set else {"name": path.stem}
        if sweep.study is not None:
            changes["study"] = str(resolved(path.parent / sweep.study))
        return sweep.model_copy(update=changes)

    def expand(self) -> list[StudyVariant]:
        """Every study of the sweep, in order, not yet checked against models and data.

        UserError names the number of a study whose settings are wrong, and refuses an empty sweep or one
        above `limit`.
        """
        shared = self._shared()
        found = list(itertools.islice(self._variants(shared), self.limit + 1))
        if len(found) > self.limit:
            raise UserError(
                f"sweep {self.name!r} has more than {self.limit} studies: make the grid smaller, or raise `limit`"
            )
        if not found:
            raise UserError(f"sweep {self.name!r} has no study: a setting of the grid has no value")
        return found

    def _shared(self) -> dict[str, Any]:
        study = Study.load(self.study) if self.study else Study()
        shared = study.model_dump(mode="json", by_alias=True)
        for name, value in _flat(self.base):
            _put(shared, name, value)
        return shared

    def _variants(self, shared: dict[str, Any]) -> Iterator[StudyVariant]:
        points = [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        changes = [*(self.studies or ({},)), *self._ablations(shared)]
        free = len(self.studies or ({},))
        pairs = itertools.product(enumerate(changes), points)
        for number, ((place, change), point) in enumerate(pairs, start=1):
            varied = {SHORT.get(name, name): _value(name, value) for name, value in (change | point).items()}
            yield StudyVariant(
                number, _study(self.name, number, shared, varied), varied, optional=place >= free
            )

    def _ablations(self, shared: dict[str, Any]) -> list[dict[str, Any]]:
        unknown = [name for name in self.ablations if name not in ABLATIONS]
        if unknown:
            raise UserError(f"unknown ablation {unknown[0]!r}: expected some of {', '.join(ABLATIONS)}")
        study = _study(self.name, 0, shared, {})
        return [change for name in self.ablations for change in ABLATIONS[name](study)]


def ablation_sweep(
    names: Sequence[str],
    study: str | Path | None = None,
    personas: Sequence[str] = ("sycophancy",),
    seeds: Sequence[int] = (0,),
    sign: Sign = "suppress",
    flops: float | None = None,
) -> Sweep:
    """Ablations of a study: the study as it is, and one study for each changed value, for each persona and seed.

    Args:
        names: Of the ablations.
        study: The study's file; the demo's when None.
        personas: Of the studies.
        seeds: Of the studies.
        sign: "suppress" or "induce".
        flops: Budget of every search, in floating point operations, in place of the study's.

    Returns:
        The sweep, to be run or written to a file.

    Example:
        >>> wb.ablation_sweep(["fluency"], seeds=(0, 1)).ablations
        ('fluency',)
    """
    base = (
        demo_study().model_dump(mode="json", by_alias=True, exclude={"name", "persona", "seed"})
        if study is None
        else {}
    )
    base |= {"sign": sign} | ({"search.budget": {"flops": flops}} if flops is not None else {})
    grid = {"persona": tuple(personas), "seed": tuple(seeds)}
    where = None if study is None else str(resolved(study))
    return Sweep(name="-".join(names), study=where, base=base, ablations=tuple(names), grid=grid)


@dataclass(frozen=True)
class StudyVariant:
    """One study of a sweep.

    number: from 1, as messages name it; varied: the settings that the sweep changed; optional: an ablation's
    value, which is left out where another study is already the same.
    """

    number: int
    study: Study
    varied: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def label(self) -> str:
        """What tells this study from the others, in a line."""
        return (
            ", ".join(f"{name.rsplit('.', 1)[-1]}={_shown(value)}" for name, value in self.varied.items())
            or "the study itself"
        )


def _study(sweep: str, number: int, shared: dict[str, Any], varied: Mapping[str, Any]) -> Study:
    content = copy.deepcopy(shared)
    for name, value in varied.items():
        _put(content, name, value)
    where = f"sweep {sweep!r}" + (f", study {number} ({_changes(varied)})" if varied else "")
    return Study.of(content, where)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested or dotted settings as dotted ones; `search.options` and `search.budget` are replaced as a whole."""
    for name, value in settings.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and full not in ("search.options", "search.budget"):
            yield from _flat(value, f"{full}.")
        else:
            yield SHORT.get(full, full), _value(full, value)


def _value(name: str, value: Any) -> Any:
    return [value] if name == "layer" and isinstance(value, int) else value


def _put(content: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for step in path:
        inner = content.setdefault(step, {})
        if not isinstance(inner, dict):
            raise UserError(f"setting {name!r}: {step!r} holds no settings of its own")
        content = inner
    content[last] = value


def _changes(varied: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in varied.items())


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + _changes(value) + "}"
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
