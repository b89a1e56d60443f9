"""What a format of SAEs is: which names it knows, and how it loads one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.registry import Registry


@dataclass(frozen=True)
class SaeLocation:
    """Where an SAE is: a directory, or a release and an id in it."""

    directory: Path | None = None
    release: str = ""
    sae_id: str = ""


@dataclass(frozen=True)
class SaeFormat:
    """A format, or a place that names come from.

    Attributes:
        name: The name in messages.
        find: From what a user gave to the place; None where the name is none of this format's. It loads
            nothing.
        load: From the place, a device and a dtype to a module with the interface of sae_lens's `SAE`;
            UserError for what cannot be read.
        expects: What a name of this format looks like, for the message about an unknown one.
        order: The format with the lowest takes a name that several know.
    """

    name: str
    find: Callable[[str | Path], SaeLocation | None]
    load: Callable[[SaeLocation, str, str], Any]
    expects: str
    order: int = 100


SAE_FORMATS: Registry[SaeFormat] = Registry("SAE format", "workbench.sae.formats", lambda entry: entry.order)


def register_sae_format(sae_format: SaeFormat) -> SaeFormat:
    """Registers a format under its name."""
    return SAE_FORMATS.add(sae_format.name, sae_format, through=__file__)
