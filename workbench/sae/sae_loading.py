"""Loading a sparse autoencoder: by name, by sae-lens release, or from a directory in sae-lens's format (safetensors only)."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors import SafetensorError

from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.models.model_sources import REPOSITORIES, data_directory, why_no_download
from workbench.runs import read_json
from workbench.sae.reconstruction_check import check_sae, own_text
from workbench.sae.sae import Sae

#: Short names: model/layer for the paper's three models (release, id in sae-lens's registry).
PRESETS: dict[str, tuple[str, str]] = {
    **{f"{model}/{k}": (f"{model}-andyrdt", f"resid_post_layer_{k}_trainer_1")
       for model in ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct") for k in (3, 7, 11, 15, 19, 23, 27)},
    **{f"gemma-3-4b-it/{k}": ("gemma-scope-2-4b-it-res", f"layer_{k}_width_16k_l0_medium") for k in (9, 17, 22, 29)},
}  # fmt: skip


@dataclass(frozen=True)
class SaeLocation:
    """Where an autoencoder lies: a directory, or a release and an id in it."""

    directory: Path | None = None
    release: str = ""
    sae_id: str = ""


def load_sae(
    name: str | Path,
    model: Any = None,
    site: Site | None = None,
    device: str | None = None,
    dtype: str = "float32",
    activation_scale: float | None = None,
) -> Sae:
    """An autoencoder, frozen, in `dtype`.

    name: "organism", a key of PRESETS, "release/id" of sae-lens, or a directory that sae-lens wrote. model: if given, width,
    layer and hook are checked against it. site: needed only where the file does not name its hook; UserError if it contradicts
    the file. device: the model's when None, without a model the CPU. activation_scale: the factor that training multiplied activations
    by, for files that do not hold it in their weights.

    With a model the reconstruction check is run on text that the model writes: the result is `Sae.fit`, and what is wrong with it a
    Python warning. Raises UserError for everything that cannot be found, read or fitted.
    """
    where = find_sae(name)
    device = device or ("cpu" if model is None else str(runner_for(model).device))
    module = _from_directory(where.directory, device, dtype) if where.directory else _from_release(where, device, dtype)
    _fold_activation_scale(str(name), module, where.directory, activation_scale)
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
    """(named presets, "release (n)" of sae-lens's registry) that were trained on this very model, by its name here or on the hub. Nothing is
    loaded; whether one fits is told by `check_sae` on the model's own text."""
    repository = REPOSITORIES.get(name.lower(), name)
    short = next((key for key, value in REPOSITORIES.items() if value == repository), name)
    registry = get_pretrained_saes_directory().values()
    releases = [f"{entry.release} ({len(entry.saes_map)})" for entry in registry if entry.model == repository]
    own = ("organism",) if name == "organism" else ()
    return own + tuple(key for key in PRESETS if key.split("/")[0] == short), tuple(sorted(releases))


def find_sae(name: str | Path) -> SaeLocation:
    """Resolves a name without loading anything. UserError when it is neither of the known kinds."""
    text = str(name)
    if text == "organism":
        return SaeLocation(_organism_directory())
    if text in PRESETS:
        return SaeLocation(None, *PRESETS[text])
    path = Path(name).expanduser()
    if path.is_dir():
        return SaeLocation(path)
    if isinstance(name, Path) or "/" not in text.strip("/") or text.startswith((".", "/", "~")):
        raise UserError(
            f"no SAE at {name}: expected 'organism', a directory, 'release/id' of sae-lens, or one of {', '.join(PRESETS)}"
        )
    release, _, sae_id = text.partition("/")
    return SaeLocation(None, release, sae_id)


def _from_directory(directory: Path, device: str, dtype: str) -> SAE[Any]:
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


def _from_release(where: SaeLocation, device: str, dtype: str) -> SAE[Any]:
    name = f"{where.release}/{where.sae_id}"
    try:
        return SAE.from_pretrained(where.release, where.sae_id, device=device, dtype=dtype)
    except ValueError as error:
        raise UserError(f"SAE {name}: {str(error).splitlines()[0]}") from error
    except OSError as error:  # the hub's errors, offline mode among them, are OSErrors
        raise UserError(
            f"SAE {name} is not in the local cache, and {why_no_download(error)}"
        ) from error


def _fold_activation_scale(name: str, module: SAE[Any], directory: Path | None, given: float | None) -> None:
    """Takes a scale of the activations into the weights, so that the autoencoder reads the model's own activations.

    Without it every activation, and so every latent, is wrong by the factor, and nothing else tells.
    """
    method = module.cfg.normalize_activations
    if method in ("none", "layer_norm", "constant_norm_rescale"):
        if given is not None:
            raise UserError(f"SAE {name}: activation_scale is for files that need one, this one has normalize_activations {method!r}")
        return
    if method != "expected_average_only_in":
        raise UserError(f"SAE {name}: normalize_activations {method!r} is not folded into its weights, which is not read; fold it with sae-lens")
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
    """The factor in sae-lens's own file beside a checkpoint's weights."""
    file = directory / ACTIVATION_SCALER_CFG_FILENAME if directory is not None else None
    if file is None or not file.is_file():
        return None
    value = read_json(file)
    scale = value.get("scaling_factor") if isinstance(value, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise UserError(f"{file}: expected a number scaling_factor, found {scale!r}")
    return float(scale)


def _site(name: str, module: SAE[Any], given: Site | None) -> Site:
    """The site that the file names, checked against the one that the caller expects."""
    hook = module.cfg.metadata.hook_name
    if hook is None and given is None:
        raise UserError(f"SAE {name} does not say which hook it reads: pass site=Site(layer)")
    if hook is None:
        return given
    site = Site.parse(str(hook))
    if given is not None and (given.layer, given.hook) != (site.layer, site.hook):
        raise UserError(f"SAE {name} was trained at {site.name}, not at {given.name}")
    return site


def _organism_directory() -> Path:
    directory = data_directory("organism", "sae")
    if not (directory / "cfg.json").is_file():
        raise UserError(f"the organism's SAE is not trained yet: nothing in {directory}")
    return directory
