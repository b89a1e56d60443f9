"""A directory that sae-lens wrote: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae_lens import SAE
from safetensors import SafetensorError

from workbench.errors import UserError
from workbench.sae.formats.sae_format import SaeFormat, SaeLocation, register_sae_format


def _find(name: str | Path) -> SaeLocation | None:
    path = Path(name).expanduser()
    return SaeLocation(path) if path.is_dir() else None


def load_directory(place: SaeLocation, device: str, dtype: str) -> SAE[Any]:
    """The module in the directory; UserError names what is missing or broken."""
    directory = place.directory
    assert directory is not None
    for file in ("cfg.json", "sae_weights.safetensors"):
        if not (directory / file).is_file():
            raise UserError(f"{directory}: not an SAE in sae-lens's format: {file} is missing")
    try:
        return SAE.load_from_disk(directory, device=device, dtype=dtype)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{directory / 'cfg.json'}: expected JSON ({error})") from error
    except SafetensorError as error:
        raise UserError(f"{directory / 'sae_weights.safetensors'}: not a whole safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: sae-lens cannot read this SAE: {first}") from error


register_sae_format(SaeFormat("sae-lens directory", _find, load_directory, "a directory", order=30))
