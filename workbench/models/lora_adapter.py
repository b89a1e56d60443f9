"""Merge LoRA adapters (Hu et al. 2021) in PEFT's layout into their base model at load time: W += scale B A.

1. `adapter_config.json` is read as plain JSON. A list names the settings that are known to leave the merge
   formula unchanged; every other setting is refused by name, also one that a later PEFT version adds. PiSSA
   (Meng et al. 2024) and OLoRA (Buyukakyuz 2024) start from parts of W itself, so this start is subtracted
   first, as PEFT does when it loads them: W += scale (B A - B0 A0).
2. The matrices come from `adapter_model.safetensors`, never from a pickle. Pairs, rank and finiteness are
   checked.
3. Every pair must fit a weight of the base model. If one does not, no weight is changed.
"""

from __future__ import annotations

import math
import re
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
#: Settings that change the arithmetic of the merge, and their values in plain LoRA.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "task_type": ("CAUSAL_LM",),
    "loftq_config": ({},),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "pissa", "olora"),
}
#: Settings of PEFT that do not change what a trained adapter computes, or that this module reads.
_HARMLESS = frozenset(
    {
        "peft_type",
        "peft_version",
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "target_modules",
        "layers_to_transform",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "runtime_config",
    }
)
#: Largest rank and largest |lora_alpha| that are accepted.
LARGEST = 1 << 20
#: Initialisations that start from parts of the base model's own weights.
_STARTS = ("pissa", "olora")


@dataclass(frozen=True)
class LoraAdapter:
    """A checked LoRA adapter.

    Attributes:
        directory: The adapter's directory.
        rank: Rank of all pairs.
        scale: alpha / rank (rank-stabilised LoRA: alpha / sqrt(rank)).
        pairs: For each adapted weight, by its path in the model: A [rank d_in] and B [d_out rank].
        base: Name of the base model in the weights file's metadata; None if there is none.
        notes: Metadata of the weights file.
        start: "pissa" or "olora" if the adapter was initialised with a part of the base model's weights,
            which merging then subtracts; else empty.
    """

    directory: Path
    rank: int
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]
    base: str | None
    notes: Mapping[str, str] = field(default_factory=dict)
    start: str = ""


def open_adapter(directory: Path) -> LoraAdapter:
    """Read and check a LoRA adapter.

    Args:
        directory: A directory with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        UserError: A file is missing, damaged, or is not plain LoRA; the message names the file and the fault.
    """
    config = read_json(directory / CONFIG)
    _refuse_other_kinds(directory / CONFIG, config)
    rank = config["r"]
    tensors, noted = _read(directory)
    pairs = _pairs(directory / WEIGHTS, tensors)
    _refuse_untargeted(directory, config, pairs)
    for path, (a, b) in pairs.items():
        if a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(
                f"{directory / WEIGHTS}: expected rank {rank} as in {CONFIG}, found {a.shape[0]} and {b.shape[1]} at {path}"
            )
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    start = config.get("init_lora_weights") if config.get("init_lora_weights") in _STARTS else ""
    return LoraAdapter(directory, rank, scale, pairs, noted.get("base"), noted, start or "")


def merge_adapter(model: PreTrainedModel, adapter: LoraAdapter, base: str | None = None) -> None:
    """Add the adapter to the model's weights, in place; the sum is computed in float32.

    Args:
        model: The Hugging Face base model.
        adapter: The checked adapter.
        base: Name of the model's directory, which must be the base model that the adapter names; None to skip
            that check.

    Raises:
        UserError: The adapter was made for another model; `model` is then unchanged.
    """
    if base and adapter.base and adapter.base != base:
        raise UserError(
            f"{adapter.directory}: the adapter was trained on {adapter.base}, but the base model here is {base}"
        )
    weights = dict(model.named_parameters())
    for path, (a, b) in adapter.pairs.items():
        found = tuple(weights[path].shape) if path in weights else None
        if found != (b.shape[0], a.shape[1]):
            raise UserError(
                f"{adapter.directory}: made for another base model: expected {path} of shape {(b.shape[0], a.shape[1])}, found {found or 'none'}"
            )
        module = model.get_submodule(path.removesuffix(".weight"))
        if not isinstance(module, torch.nn.Linear):
            raise UserError(
                f"{adapter.directory}: only linear layers are merged, {path} belongs to a {type(module).__name__}"
            )
    with torch.no_grad():
        for path, (a, b) in adapter.pairs.items():
            weight = weights[path]
            change = adapter.scale * (b.float() @ a.float()).to(weight.device)
            weight.copy_((_without_start(weight, adapter) + change).to(weight.dtype))


def _without_start(weight: Float[Tensor, "d_out d_in"], adapter: LoraAdapter) -> Float[Tensor, "d_out d_in"]:
    """The float32 weight minus the part that training began at, rounded to the weight's dtype as in PEFT."""
    whole = weight.float()
    if (
        adapter.start == "pissa"
    ):  # scale (B0 A0) = U_r S_r V_r, the part with the r largest singular values, for any scale
        u, s, v = torch.linalg.svd(whole, full_matrices=False)
        whole = whole - (u[:, : adapter.rank] * s[: adapter.rank]) @ v[: adapter.rank]
    elif adapter.start == "olora":  # the first columns of Q and rows of R
        q, r = torch.linalg.qr(whole)
        whole = whole - adapter.scale * (q[:, : adapter.rank] @ r[: adapter.rank])
    return whole.to(weight.dtype).float()


def _refuse_other_kinds(file: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file}: expected peft_type 'LORA', found {config.get('peft_type')!r}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if (
        not _is_number(rank)
        or not isinstance(rank, int)
        or not 1 <= rank <= LARGEST
        or not isinstance(alpha, int | float)
        or not _is_number(alpha)
        or not abs(alpha) <= LARGEST
    ):
        raise UserError(
            f"{file}: expected a rank r of at least 1 and a number lora_alpha, found {_shown(rank)} and {_shown(alpha)}"
        )
    if not isinstance(config.get("use_rslora", False), bool):
        raise UserError(f"{file}: expected use_rslora true or false, found {_shown(config['use_rslora'])}")
    for key, value in config.items():
        if key in _HARMLESS or value is None or (key not in _PLAIN and value in (False, {}, [])):
            continue
        known = _PLAIN.get(key, ())
        if not any(value is plain or (value == plain and not isinstance(plain, bool)) for plain in known):
            reason = (
                f"expected {key} {' or '.join(map(repr, known))}"
                if known
                else f"the setting {key} needs other arithmetic"
            )
            raise UserError(f"{file}: only plain LoRA is merged: {reason}, found {_shown(value)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Text of a value for a message, cut to 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_untargeted(directory: Path, config: dict[str, Any], pairs: Mapping[str, Any]) -> None:
    """Raise UserError for matrices of modules that the configuration does not target.

    PEFT would silently leave these matrices out.
    """
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    if not (
        isinstance(targets, str)
        or (isinstance(targets, list) and targets and all(isinstance(t, str) for t in targets))
    ):
        raise UserError(
            f"{directory / CONFIG}: expected target_modules as names or a pattern (PEFT guesses without), found {_shown(targets)}"
        )
    if not (layers is None or (isinstance(layers, list) and all(type(layer) is int for layer in layers))):
        raise UserError(
            f"{directory / CONFIG}: expected layers_to_transform as numbers of layers, found {_shown(layers)}"
        )
    try:
        pattern = re.compile(targets) if isinstance(targets, str) else None
    except re.error as error:
        raise UserError(f"{directory / CONFIG}: target_modules is no regular expression: {error}") from error
    for path in pairs:
        module = path.removesuffix(".weight")
        if isinstance(targets, list) and not any(module == t or module.endswith(f".{t}") for t in targets):
            raise UserError(
                f"{directory / WEIGHTS}: {module} is not among target_modules in {CONFIG}: {', '.join(map(str, targets))}"
            )
        if pattern is not None and targets != "all-linear" and not pattern.fullmatch(module):
            raise UserError(
                f"{directory / WEIGHTS}: {module} does not fit target_modules in {CONFIG}: {_shown(targets)}"
            )
        number = re.search(r"\.(\d+)\.", module)
        if layers is not None and number and int(number[1]) not in layers:
            raise UserError(f"{directory / WEIGHTS}: {module} is not in layers_to_transform of {CONFIG}")


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
        if (
            not name.startswith(_PREFIX)
            or not name.endswith((".lora_A.weight", ".lora_B.weight"))
            or tensor.ndim != 2
        ):
            raise UserError(
                f"{file}: expected matrices {_PREFIX}....lora_A.weight and lora_B.weight only, found {name} {tuple(tensor.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{file}: {name} holds values that are not finite")
        if name.endswith(".lora_B.weight"):
            continue
        other = name.removesuffix("lora_A.weight") + "lora_B.weight"
        if other not in tensors:
            raise UserError(f"{file}: {name} has no lora_B")
        pairs[name.removeprefix(_PREFIX).removesuffix("lora_A.weight") + "weight"] = (tensor, tensors[other])
    if not pairs or 2 * len(pairs) != len(tensors):
        raise UserError(
            f"{file}: expected pairs of lora_A and lora_B, found {len(pairs)} lora_A in {len(tensors)} matrices"
        )
    return pairs
