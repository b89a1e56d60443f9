"""LoRA adapters (Hu et al. 2021) in PEFT's layout, merged into their base model at load time: W += (alpha / r) B A.

1. `adapter_config.json` is read as plain JSON; only plain LoRA is merged: whatever would need other arithmetic is refused.
2. The matrices come from `adapter_model.safetensors`, never from a pickle; pairs, rank and finiteness are checked.
3. Every pair must fit a weight of the base model. Nothing is changed unless all fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from workbench.errors import UserError
from workbench.models.model_directory import one_line, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
#: Settings that change the arithmetic of the merge, and their value in plain LoRA.
_PLAIN = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "use_rslora": False,
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}


@dataclass(frozen=True)
class LoraAdapter:
    """A checked adapter. pairs: weight's path -> (A [rank d_in], B [d_out rank]); scale: alpha / rank; base: what its
    trainer noted of the base model (None: nothing); notes: all that it noted."""

    directory: Path
    rank: int
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]
    base: str | None
    notes: Mapping[str, str] = field(default_factory=dict)


def open_adapter(directory: Path) -> LoraAdapter:
    """Reads and checks an adapter. UserError names the file and what is wrong in it."""
    config = read_json(directory / CONFIG)
    _refuse_other_kinds(directory / CONFIG, config)
    rank = config["r"]
    tensors, noted = _read(directory)
    pairs = _pairs(directory / WEIGHTS, tensors)
    for path, (a, b) in pairs.items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(f"{directory / WEIGHTS}: expected rank {rank} as in {CONFIG}, found {a.shape[0]} and {b.shape[1]} at {path}")
    return LoraAdapter(directory, rank, config["lora_alpha"] / rank, pairs, noted.get("base"), noted)


def merge_adapter(model: PreTrainedModel, adapter: LoraAdapter, base: str | None = None) -> None:
    """Adds the adapter to the model's weights, in place, computed in float32.

    base: the name of the model's directory, compared with the adapter's note. UserError when the adapter was made for
    another model; the model is then unchanged.
    """
    if base and adapter.base and adapter.base != base:
        raise UserError(f"{adapter.directory}: the adapter was trained on {adapter.base}, but the base model here is {base}")
    weights = dict(model.named_parameters())
    for path, (a, b) in adapter.pairs.items():
        found = tuple(weights[path].shape) if path in weights else None
        if found != (b.shape[0], a.shape[1]):
            raise UserError(
                f"{adapter.directory}: made for another base model: expected {path} of shape {(b.shape[0], a.shape[1])}, found {found or 'none'}"
            )
    with torch.no_grad():
        for path, pair in adapter.pairs.items():
            weights[path].copy_((weights[path].float() + _product(adapter, *pair).to(weights[path].device)).to(weights[path].dtype))


def _product(adapter: LoraAdapter, a: Tensor, b: Tensor) -> Float[Tensor, "d_out d_in"]:
    return adapter.scale * (b.float() @ a.float())


def _refuse_other_kinds(file: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file}: expected peft_type 'LORA', found {config.get('peft_type')!r}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(f"{file}: expected a rank r of at least 1 and a number lora_alpha, found {rank!r} and {alpha!r}")
    for key, plain in _PLAIN.items():
        if config.get(key) not in (plain, None):
            raise UserError(f"{file}: only plain LoRA is merged: expected {key} {plain!r}, found {config[key]!r}")
    if config.get("modules_to_save"):
        raise UserError(f"{file}: only plain LoRA is merged: found whole modules saved beside it ({config['modules_to_save']})")


def _read(directory: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    file = directory / WEIGHTS
    if not file.is_file():
        pickles = sorted(f.name for f in directory.glob("adapter_model.*"))
        found = f"{', '.join(pickles)} (pickles can run code: refused)" if pickles else "none"
        raise UserError(f"{directory}: expected {WEIGHTS}, found {found}")
    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: broken or cut short: {one_line(error)}") from error


def _pairs(file: Path, tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIX) or not name.endswith((".lora_A.weight", ".lora_B.weight")) or tensor.ndim != 2:
            raise UserError(f"{file}: expected matrices {_PREFIX}....lora_A.weight and lora_B.weight only, found {name} {tuple(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{file}: {name} holds values that are not finite")
        if name.endswith(".lora_B.weight"):
            continue
        other = name.removesuffix("lora_A.weight") + "lora_B.weight"
        if other not in tensors:
            raise UserError(f"{file}: {name} has no lora_B beside it")
        pairs[name.removeprefix(_PREFIX).removesuffix("lora_A.weight") + "weight"] = (tensor, tensors[other])
    if not pairs or 2 * len(pairs) != len(tensors):
        raise UserError(f"{file}: expected pairs of lora_A and lora_B, found {len(pairs)} lora_A in {len(tensors)} matrices")
    return pairs
