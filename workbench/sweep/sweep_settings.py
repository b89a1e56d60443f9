"""The settings of a sweep: many studies described in a few lines.

1. The shared study is the file `study` with the settings of `base` replaced.
2. Variants of it: each entry of `studies` is a mapping from settings to values, and each name in `ablations`
   means a few such entries (paper_ablations.py), each of which changes one thing. Without either there is one
   variant, the shared study itself.
3. Each variant is combined with every point of `grid`, the product of its settings' values.

Names of settings are written with dots, as in a study's file (`search.options.length`). Short names exist for
model, layer, method and length.
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

#: Short names of the settings that sweeps vary most often.
SHORT = {
    "model": "model.name",
    "layer": "directions.layers",
    "method": "search.method",
    "length": "search.options.length",
}


class Sweep(BaseModel):
    """Many studies in one file: a shared study, its variants, and a grid of settings.

    Attributes:
        name: Name of the sweep and of its directory.
        study: File of the shared study; None for the demo's.
        base: Settings that replace those of the shared study.
        studies: Variants, each a mapping from settings to values.
        ablations: Names of predefined ablations (variations of one part of the study), such as "fluency".
        grid: Values for each setting; all combinations are run.
        limit: Largest number of studies.
        study_seconds: Wall-clock limit of each study in seconds; None for no limit.

    Example:
        >>> grid = {"seed": (0, 1), "persona": ("sycophancy", "hallucination")}
        >>> len(wb.Sweep(grid=grid).expand())
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
    """Values by setting; every variant is run with every combination of values."""
    limit: int = Field(default=10_000, ge=1)
    """Largest number of studies that the sweep may have."""
    study_seconds: float | None = Field(default=None, gt=0, le=1e9)
    """Wall-clock limit of a study, seconds; beyond it the study fails and can be resumed. null: no limit."""

    def to_yaml(self) -> str:
        """Return the sweep as the YAML text of a sweep file, with every default."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )

    @classmethod
    def from_yaml(cls, text: str, source: str = "sweep") -> Sweep:
        """Read a sweep from YAML text.

        Args:
            text: The text of a sweep file.
            source: Name of the text, for messages.

        Returns:
            The sweep.

        Raises:
            UserError: The text is wrong; the message names source and field.
        """
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
        """Load a sweep from a YAML file.

        A sweep without a name is named after the file. A relative `study` is taken from the file's directory.

        Args:
            path: The file.

        Returns:
            The sweep.

        Raises:
            UserError: The file is wrong; the message names file and field.
        """
        path = Path(path)
        sweep = cls.from_yaml(read_text(path), str(path))
        changes: dict[str, Any] = {} if "name" in sweep.model_fields_set else {"name": path.stem}
        if sweep.study is not None:
            changes["study"] = str(resolved(path.parent / sweep.study))
        return sweep.model_copy(update=changes)

    def expand(self) -> list[StudyVariant]:
        """Return every study of the sweep, in order, not yet checked against models and data.

        Raises:
            UserError: The settings of a study are wrong (the message names its number), or the sweep has no
                study or more than `limit`.
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
    """Make a sweep of ablations: a study unchanged and one per changed value, for each persona and seed.

    Args:
        names: Names of the ablations.
        study: File of the study; None for the demo's.
        personas: Personas of the studies.
        seeds: Seeds of the studies.
        sign: "suppress" or "induce".
        flops: Budget of every search in floating point operations; None for the study's own budget.

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

    Attributes:
        number: Number of the study in messages, from 1.
        study: The study.
        varied: Values of the settings that the sweep changed, by name.
        optional: Whether the study is left out, instead of refused, if it equals another study of the sweep;
            true for studies of ablations.
    """

    number: int
    study: Study
    varied: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def label(self) -> str:
        """One line that distinguishes this study from the others of the sweep: the settings that vary."""
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
    """Yield nested or dotted settings as dotted ones.

    `search.options` and `search.budget` are replaced as a whole.
    """
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
