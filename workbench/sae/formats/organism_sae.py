"""The SAE of the embedded model, under the name "organism"."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import UserError
from workbench.models.model_sources import data_directory
from workbench.sae.formats.sae_format import SaeFormat, SaeLocation, register_sae_format
from workbench.sae.formats.sae_lens_directory import load_directory


def _find(name: str | Path) -> SaeLocation | None:
    return SaeLocation(_organism_directory()) if str(name) == "organism" else None


def _organism_directory() -> Path:
    directory = data_directory("organism", "sae")
    if not (directory / "cfg.json").is_file():
        raise UserError(f"the organism's SAE is not trained yet: nothing in {directory}")
    return directory


register_sae_format(SaeFormat("organism", _find, load_directory, "'organism'", order=10))
