"""Definition of an SAE format: which names it knows, and how it loads an SAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.registry import Registry


@dataclass(frozen=True)
class SaeLocation:
    """Where an SAE is stored: a directory, or a release of SAELens with the SAE's id in it."""

    directory: Path | None = None
    release: str = ""
    sae_id: str = ""


@dataclass(frozen=True)
class SaeFormat:
    """A source of SAEs: a file format, or a registry of names.

    Attributes:
        name: Name of the format in messages.
        find: Function from a user's name or path to the SAE's location; None if this format does not know the
            name. It loads nothing.
        load: Function from a location, a device and a dtype to a module with the interface of sae_lens's
            `SAE`. It raises UserError for an SAE that cannot be read.
        expects: Description of a name of this format, for the message about an unknown name.
        order: If several formats know a name, the one with the lowest order is used.
    """

    name: str
    find: Callable[[str | Path], SaeLocation | None]
    load: Callable[[SaeLocation, str, str], Any]
    expects: str
    order: int = 100


SAE_FORMATS: Registry[SaeFormat] = Registry("SAE format", "workbench.sae.formats", lambda entry: entry.order)


def register_sae_format(sae_format: SaeFormat) -> SaeFormat:
    """Register an SAE format under its name and return it."""
    return SAE_FORMATS.add(sae_format.name, sae_format, through=__file__)
