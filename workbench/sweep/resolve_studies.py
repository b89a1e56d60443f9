"""Check every study of a sweep before any of them starts, and compute the key of its run directory.

1. Persona, data, splits, model, layers, SAE and search method of each study are looked up, without loading
   anything large and only once for all studies that share them. An error is one line with the study's number.
2. The key is the sha256 of the settings with everything resolved: the method with its defaults, the items'
   hash instead of the data's path, and a hash of the model's files next to its name. So other data or weights
   under the same name make another study.
3. Two studies with one key would have one output, so they are refused. (A value of an ablation that repeats
   another study is left out.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from workbench.errors import UserError
from workbench.models.loading import choose_device
from workbench.models.model_directory import Place, open_model_directory
from workbench.models.model_sources import find_source
from workbench.models.weights_hash import files_hash, source_hash
from workbench.personas import Persona, load_persona
from workbench.sae import find_sae
from workbench.study import Study
from workbench.study.stages.search import make_method
from workbench.sweep.sweep_settings import StudyVariant


@dataclass(frozen=True)
class PlannedStudy:
    """A study of a sweep whose settings were checked, with the name of its run directory.

    Attributes:
        variant: The study with the settings that the sweep changed.
        key: Hash of the study's settings, 16 hexadecimal digits; its run directory is named after it.
    """

    variant: StudyVariant
    key: str

    @property
    def study(self) -> Study:
        """The study, named after its key, so that equal settings give the same files in every sweep."""
        return self.variant.study.model_copy(update={"name": f"study {self.key}"})


def plan(variants: Iterable[StudyVariant], here: bool = True) -> list[PlannedStudy]:
    """Check all studies of a sweep and compute their keys, hashes of their settings.

    Args:
        variants: The studies.
        here: Whether they run on this machine, so that their devices must exist on it.

    Returns:
        The studies with their keys. A study of an ablation that equals another study is left out.

    Raises:
        UserError: A study cannot run, or two studies are the same.
    """
    resolver, planned = StudyResolver(here), dict[str, PlannedStudy]()
    for variant in variants:
        try:
            key = resolver.key(variant.study)
        except UserError as error:
            raise UserError(f"study {variant.number} ({variant.label}): {error}") from error
        if key not in planned:
            planned[key] = PlannedStudy(variant, key)
        elif not variant.optional:
            first = planned[key].variant
            raise UserError(
                f"studies {first.number} ({first.label}) and {variant.number} ({variant.label}) are the same: they would have one output"
            )
    return list(planned.values())


class StudyResolver:
    """Looks up the personas, models and SAEs that studies name, each only once."""

    def __init__(self, here: bool = True) -> None:
        self.here = here
        self._persona: Callable[[str, str | None, int], Persona] = cache(load_persona)
        self._split: Callable[..., Any] = cache(
            lambda d, persona: self._persona(persona, d.path, d.world).split(d.split_seed, d.fractions)
        )
        self._weights: Callable[[str, str | None], tuple[int, str]] = cache(_model_facts)
        self._sae: Callable[[str], str] = cache(_sae_facts)
        self._device: Callable[[str], Place] = cache(choose_device)

    def key(self, study: Study) -> str:
        """Check a study and return its key, a hash of its settings and of the model, SAE and data it names.

        Raises:
            UserError: The study names something that does not exist.
        """
        persona = self._persona(study.persona, study.data.path, study.data.world)
        self._split(study.data, study.persona)
        if study.sign not in persona.manual_prompts and (
            "manual" in study.conditions or study.search.start == "manual"
        ):
            raise UserError(
                f"persona {persona.name!r} has no manual prompts to {study.sign}: neither a condition nor a start can be one"
            )
        layers, weights = self._weights(study.model.name, study.model.revision)
        unknown = [layer for layer in study.directions.layers or () if not 0 <= layer < layers]
        if unknown:
            raise UserError(
                f"layer {unknown[0]} does not exist: {study.model.name} has layers 0-{layers - 1}"
            )
        if self.here:
            self._device(study.model.device)
        content = study.model_dump(mode="json", by_alias=True, exclude={"name": True, "data": {"path"}})
        content["search"]["options"] = make_method(study, study.search.method).model_dump(mode="json")
        others = {name: self._persona(name, None, study.data.world).hash for name in study.beside}
        content |= {
            "persona": [persona.name, persona.hash],
            "others": others,
            "weights": weights,
            "sae": self._sae(_sae_name(study)),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _sae_name(study: Study) -> str:
    if study.sae != "auto":
        return study.sae
    return "organism" if study.model.name == "organism" else "none"


def _model_facts(name: str, revision: str | None) -> tuple[int, str]:
    """Return the number of blocks and the hash of all files of a model, including an adapter's."""
    source = find_source(name, revision)
    return open_model_directory(source.directory).config.num_hidden_layers, source_hash(source)


def _sae_facts(name: str) -> str:
    if name == "none":
        return name
    directory = find_sae(name).directory
    return (
        name
        if directory is None
        else files_hash([*sorted(directory.glob("*.json")), *sorted(directory.glob("*.safetensors"))])
    )
