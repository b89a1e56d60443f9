"""Registries as they were, after code that registers toys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workbench.attribution import ESTIMATORS
from workbench.conditions import CONDITION_KINDS, STUDY_CONDITIONS
from workbench.directions import DIRECTION_METHODS
from workbench.personas import DATA_FORMATS
from workbench.registry import Registry
from workbench.sae import SAE_FORMATS
from workbench.search import SEARCH_METHODS

ALL: tuple[Registry, ...] = (
    CONDITION_KINDS,
    STUDY_CONDITIONS,
    SEARCH_METHODS,
    DIRECTION_METHODS,
    ESTIMATORS,
    DATA_FORMATS,
    SAE_FORMATS,
)


@contextmanager
def restored_registries() -> Iterator[None]:
    """What the block registers is forgotten at its end."""
    before = [set(registry) for registry in ALL]
    try:
        yield
    finally:
        for registry, names in zip(ALL, before, strict=True):
            for name in set(registry) - names:
                registry.discard(name)
