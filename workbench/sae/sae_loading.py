"""Loading an SAE of any known format (`formats/`, one file each), checked against the model; safetensors only."""

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
    """Load an SAE, frozen, in `dtype`.

    With a model the reconstruction check is run on text that the model writes: the result is `Sae.fit`, and
    what is wrong with it a Python warning.

    Args:
        name: "organism", a key of PRESETS, "release/id" of SAELens, or a directory that SAELens wrote.
        model: If given, width, layer and hook are checked against it.
        site: Needed only where the file does not name its hook.
        device: The model's when None; without a model the CPU.
        dtype: Of the weights.
        activation_scale: The factor that training multiplied activations by, for files that do not hold it in
            their weights.

    Returns:
        The SAE with `encode`, `decode`, `W_dec` and its `site`.

    Raises:
        UserError: Everything that cannot be found, read or fitted; a `site` that contradicts the file.

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
    """(named presets, "release (n)" of sae-lens's registry) that were trained on this very model, by its name here or on the hub.

    Nothing is loaded; whether one fits is measured by `check_sae` on the model's own text.
    """
    repository = REPOSITORIES.get(name.lower(), name)
    short = next((key for key, value in REPOSITORIES.items() if value == repository), name)
    registry = get_pretrained_saes_directory().values()
    releases = [f"{entry.release} ({len(entry.saes_map)})" for entry in registry if entry.model == repository]
    own = ("organism",) if name == "organism" else ()
    return own + tuple(key for key in PRESETS if key.split("/")[0] == short), tuple(sorted(releases))


def _fold_activation_scale(name: str, module: SAE[Any], directory: Path | None, given: float | None) -> None:
    """Takes a scale of the activations into the weights, so that the SAE reads the model's own activations.

    Without it every activation, and so every latent, is wrong by the factor, and nothing else tells.
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
    """The factor in sae-lens's own file next to a checkpoint's weights."""
    file = directory / ACTIVATION_SCALER_CFG_FILENAME if directory is not None else None
    if file is None or not file.is_file():
        return None
    value = read_json(file)
    scale = value.get("scaling_factor") if isinstance(value, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise UserError(f"{file}: expected a number scaling_factor, found {scale!r}")
    return float(scale)


def find_sae(name: str | Path) -> SaeLocation:
    """Resolves a name without loading anything. UserError where no format knows it."""
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
    """The site that the file names, checked against the one that the caller expects."""
    hook = module.cfg.metadata.hook_name
    if hook is None:
        if given is None:
            raise UserError(f"SAE {name} does not say which hook it reads: pass site=Site(layer)")
        return given
    site = Site.parse(str(hook))
    if given is not None and (given.layer, given.hook) != (site.layer, site.hook):
        raise UserError(f"SAE {name} was trained at {site.name}, not at {given.name}")
    return site
