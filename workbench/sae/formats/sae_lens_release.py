"""SAEs of SAELens's registry: `release/id`, or a short name for the SAEs of the paper's models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens import SAE

from workbench.errors import UserError
from workbench.models.model_sources import why_no_download
from workbench.sae.formats.sae_format import SaeFormat, SaeLocation, register_sae_format

#: Short names: model/layer for the paper's three models (release, id in sae-lens's registry).
PRESETS: dict[str, tuple[str, str]] = {
    **{
        f"{model}/{k}": (f"{model}-andyrdt", f"resid_post_layer_{k}_trainer_1")
        for model in ("llama-3.1-8b-instruct", "qwen2.5-7b-instruct")
        for k in (3, 7, 11, 15, 19, 23, 27)
    },
    **{
        f"gemma-3-4b-it/{k}": ("gemma-scope-2-4b-it-res", f"layer_{k}_width_16k_l0_medium")
        for k in (9, 17, 22, 29)
    },
}


def _find_preset(name: str | Path) -> SaeLocation | None:
    return SaeLocation(None, *PRESETS[str(name)]) if str(name) in PRESETS else None


def _find(name: str | Path) -> SaeLocation | None:
    text = str(name)
    if isinstance(name, Path) or "/" not in text.strip("/") or text.startswith((".", "/", "~")):
        return None
    release, _, sae_id = text.partition("/")
    return SaeLocation(None, release, sae_id)


def _load(where: SaeLocation, device: str, dtype: str) -> SAE[Any]:
    name = f"{where.release}/{where.sae_id}"
    try:
        return SAE.from_pretrained(where.release, where.sae_id, device=device, dtype=dtype)
    except ValueError as error:
        raise UserError(f"SAE {name}: {str(error).splitlines()[0]}") from error
    except OSError as error:  # the hub's errors, offline mode among them, are OSErrors
        raise UserError(f"SAE {name} is not in the local cache, and {why_no_download(error)}") from error


register_sae_format(SaeFormat("preset", _find_preset, _load, f"one of {', '.join(PRESETS)}", order=20))
register_sae_format(SaeFormat("sae-lens release", _find, _load, "'release/id' of sae-lens", order=40))
