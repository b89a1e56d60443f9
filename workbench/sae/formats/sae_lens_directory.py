"""SAEs in a directory that SAELens wrote: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sae_lens import SAE
from safetensors import SafetensorError

from workbench.errors import UserError
from workbench.runs import read_json
from workbench.sae.formats.sae_format import SaeFormat, SaeLocation, register_sae_format


def _find(name: str | Path) -> SaeLocation | None:
    path = Path(name).expanduser()
    return SaeLocation(path) if path.is_dir() else None


def load_directory(place: SaeLocation, device: str, dtype: str) -> SAE[Any]:
    """Load the SAE in a directory that SAELens wrote.

    Args:
        place: The SAE's location.
        device: Device of the weights.
        dtype: Type of the weights, for example "float32".

    Raises:
        UserError: A file is missing, broken, or specifies arithmetic that SAELens does not support.
    """
    directory = place.directory
    assert directory is not None
    for file in ("cfg.json", "sae_weights.safetensors"):
        if not (directory / file).is_file():
            raise UserError(f"{directory}: not an SAE in sae-lens's format: {file} is missing")
    _check_config(directory / "cfg.json")
    try:
        return SAE.load_from_disk(directory, device=device, dtype=dtype)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{directory / 'cfg.json'}: expected JSON ({error})") from error
    except SafetensorError as error:
        raise UserError(
            f"{directory / 'sae_weights.safetensors'}: not a whole safetensors file ({error})"
        ) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: sae-lens cannot read this SAE: {first}") from error


def _check_config(file: Path) -> None:
    """Raise UserError for an invalid configuration, or for arithmetic that SAELens would leave out."""
    config = read_json(file, limit=1 << 24)
    metadata = config.get("metadata", {}) if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(metadata, dict):
        found = (
            type(config).__name__
            if not isinstance(config, dict)
            else f"metadata as {type(metadata).__name__}"
        )
        raise UserError(f"{file}: expected a table of settings, found {found}")
    for name in ("d_in", "d_sae", "k"):
        value = config.get(name)
        if value is not None and not (
            isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 1 << 31
        ):
            raise UserError(
                f"{file}, field {name}: expected a number of at least 1, found {str(value)[:40]!r}"
            )
    said = {**config, **metadata}
    for name in _DROPPED:
        if said.get(name) not in (None, False):
            raise UserError(
                f"{file}, field {name}: found {str(said[name])[:40]!r}, which sae-lens leaves out: the latents would be others"
            )
    activation = said.get("activation_fn", said.get("activation_fn_str", "relu"))
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{file}: expected an activation_fn of {', '.join(_ACTIVATIONS)}, found {str(activation)[:40]!r}"
        )
    layer, site = (
        said.get("hook_layer", said.get("hook_point_layer")),
        said.get("hook_name", said.get("hook_point")),
    )
    if (
        isinstance(layer, int)
        and isinstance(site, str)
        and re.match(r"blocks\.\d", site)
        and not re.match(rf"blocks\.0*{layer}\.", site)
    ):
        raise UserError(f"{file}: hook_name {site[:60]!r} contradicts hook_layer {layer}")


#: Settings that change the latents' activations, and that sae-lens does not read from a directory.
_DROPPED = (
    "finetuning_scaling_factor",
    "hook_head_index",
    "hook_point_head_index",
    "hook_name_out",
    "input_whitening",
)
_ACTIVATIONS = ("relu", "topk", "jumprelu")

register_sae_format(SaeFormat("sae-lens directory", _find, load_directory, "a directory", order=30))
