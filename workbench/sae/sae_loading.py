"""Load an SAE of any known format (`formats/`, one file each) and check it against the model.

Weights are read from safetensors files only.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.models.model_sources import REPOSITORIES
from workbench.runs import read_json
from workbench.sae.formats.sae_format import SAE_FORMATS, SaeFormat, SaeLocation
from workbench.sae.formats.sae_lens_release import PRESETS
from workbench.sae.reconstruction_check import check_sae, own_text
from workbench.sae.sae import Sae


def load_sae(
    name: str | Path,
    model: Any = None,
    site: Site | None = None,
    device: str | None = None,
    dtype: str = "float32",
    activation_scale: float | None = None,
) -> Sae:
    """Load an SAE, frozen, and check that it fits a model.

    With a model, the SAE reconstructs text that the model writes. The result is `Sae.fit`, and a bad fit
    gives a Python warning.

    Args:
        name: "release/id" of SAELens, a directory that SAELens wrote, a short name (a key of PRESETS), or
            "organism" (the SAE of the package's own model).
        model: Model whose width, layer and hook must fit the SAE. None: no check.
        site: Site that the SAE reads; needed only if its file does not name a hook.
        device: Device of the weights. None: the model's device, or the CPU without a model.
        dtype: Type of the weights.
        activation_scale: Factor by which activations were multiplied in training, for SAEs whose weights do
            not contain it.

    Returns:
        The SAE with `encode`, `decode`, `W_dec` and its `site`.

    Raises:
        UserError: The SAE cannot be found or read, does not fit the model, or `site` contradicts its file.

    Example:
        >>> sae = wb.load_sae("organism", model)
        >>> sae.encode(torch.zeros(1, sae.d_in)).shape == (1, sae.d_sae)
        True
    """
    sae_format, place = _resolve(name)
    device = device or ("cpu" if model is None else str(runner_for(model).device))
    module = sae_format.load(place, device, dtype)
    _fold_activation_scale(str(name), module, place.directory, activation_scale)
    sae = Sae(str(name), _site(str(name), module, site), module)
    bad = [key for key, value in module.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise UserError(f"SAE {name!s}: the weights {bad[0]!r} hold values that are not finite")
    if model is None:
        return sae
    fit = check_sae(sae.check(model), model, own_text(model))
    if fit.warnings:
        warnings.warn("; ".join(fit.warnings), stacklevel=2)
    return replace(sae, fit=fit)


def saes_for(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List the SAEs that were trained on a model, without loading any.

    Whether an SAE fits is measured by `check_sae` on the model's own text.

    Args:
        name: Name of the model in the workbench or on the Hugging Face hub.

    Returns:
        The names of presets, and the releases in SAELens's registry as "release (number of SAEs)".
    """
    repository = REPOSITORIES.get(name.lower(), name)
    short = next((key for key, value in REPOSITORIES.items() if value == repository), name)
    registry = get_pretrained_saes_directory().values()
    releases = [f"{entry.release} ({len(entry.saes_map)})" for entry in registry if entry.model == repository]
    own = ("organism",) if name == "organism" else ()
    return own + tuple(key for key in PRESETS if key.split("/")[0] == short), tuple(sorted(releases))


def _fold_activation_scale(name: str, module: SAE[Any], directory: Path | None, given: float | None) -> None:
    """Fold the scale of the training activations into the weights, to read unscaled activations.

    Without this, every activation and so every latent would be wrong by the factor, with no other sign of it.
    """
    method = module.cfg.normalize_activations
    if method in ("none", "layer_norm", "constant_norm_rescale"):
        if given is not None:
            raise UserError(
                f"SAE {name}: activation_scale is for files that need one, this one has normalize_activations {method!r}"
            )
        return
    if method != "expected_average_only_in":
        raise UserError(
            f"SAE {name}: normalize_activations {method!r} is not folded into its weights, which is not read; fold it with sae-lens"
        )
    scale = given if given is not None else _saved_scale(directory)
    if scale is None:
        raise UserError(
            f"SAE {name}: its activations were scaled in training (normalize_activations 'expected_average_only_in') and the factor is not "
            "in its weights: pass activation_scale=sqrt(d_in) / mean norm of the training activations"
        )
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"SAE {name}: activation_scale is a number above 0, found {scale!r}")
    module.fold_activation_norm_scaling_factor(scale)


def _saved_scale(directory: Path | None) -> float | None:
    """Return the factor in SAELens's file next to a checkpoint's weights, or None without that file."""
    file = directory / ACTIVATION_SCALER_CFG_FILENAME if directory is not None else None
    if file is None or not file.is_file():
        return None
    value = read_json(file)
    scale = value.get("scaling_factor") if isinstance(value, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise UserError(f"{file}: expected a number scaling_factor, found {scale!r}")
    return float(scale)


def find_sae(name: str | Path) -> SaeLocation:
    """Return the location of an SAE without loading it.

    Args:
        name: Name or path, as in `load_sae`.

    Raises:
        UserError: No format knows the name.
    """
    return _resolve(name)[1]


def _resolve(name: str | Path) -> tuple[SaeFormat, SaeLocation]:
    for sae_format in SAE_FORMATS.values():
        place = sae_format.find(name)
        if place is not None:
            return sae_format, place
    raise UserError(
        f"no SAE at {name}: expected {'; '.join(entry.expects for entry in SAE_FORMATS.values())}"
    )


def _site(name: str, module: SAE[Any], given: Site | None) -> Site:
    """Return the site that the file names, checked against the site that the caller gives."""
    hook = module.cfg.metadata.hook_name
    if hook is None:
        if given is None:
            raise UserError(f"SAE {name} does not say which hook it reads: pass site=Site(layer)")
        return given
    site = Site.parse(str(hook))
    if given is not None and (given.layer, given.hook) != (site.layer, site.hook):
        raise UserError(f"SAE {name} was trained at {site.name}, not at {given.name}")
    return site
