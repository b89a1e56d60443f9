"""Load any model by name, directory or file as a TransformerLens model whose logits are Hugging Face's."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import UserError
from workbench.models.chat_template import end_ids
from workbench.models.device_room import refuse_too_large
from workbench.models.hooked_conversion import NotExpressible, hooked_config, to_hooked
from workbench.models.lora_adapter import merge_adapter, open_adapter
from workbench.models.model_directory import (
    ModelDirectory,
    Place,
    load_reference,
    load_tokenizer,
    open_model_directory,
    spreads,
)
from workbench.models.model_sources import ModelSource, find_source
from workbench.models.notebook_display import show_as_table
from workbench.models.runner import CONFIGURED_ENDS

Backend = Literal["auto", "hooked", "bridge"]
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class ModelProvenance:
    """Origin of a loaded model.

    Attributes:
        source: Name, directory and hub commit of the model's files.
        architecture: Hugging Face's class, such as `LlamaForCausalLM`.
        backend: The TransformerLens class that runs the model: `hooked` (HookedTransformer) or `bridge`.
        reason: Why HookedTransformer cannot represent the model exactly, if the bridge is used instead; else
            None.
    """

    source: ModelSource
    architecture: str
    backend: Literal["hooked", "bridge"]
    reason: str | None = None


_PROVENANCE: weakref.WeakKeyDictionary[Any, ModelProvenance] = weakref.WeakKeyDictionary()


def load_model(
    name: str | Path,
    device: Place = "cpu",
    dtype: str | torch.dtype = "float32",
    backend: Backend = "auto",
    revision: str | None = None,
    adapter: str | Path | None = None,
) -> HookedTransformer | TransformerBridge:
    """Load a model with its tokenizer, in evaluation mode, without gradients of its weights.

    Weights are neither folded nor centred: the logits are Hugging Face's. Nothing is downloaded for a
    directory, no code of a checkpoint runs, pickles are refused. Text never gets a second BOS token:
    `default_prepend_bos` is off.

    Args:
        name: `organism`, `smollm2-135m`, `smollm2-sycophant`, `smollm2-personas`, `llama-3.1-8b-instruct`,
            `qwen2.5-7b-instruct`, `gemma-3-4b-it`, a Hugging Face directory (safetensors), a GGUF file (or a
            directory with one), or `owner/repository`. Of a multimodal Gemma 3 the text part is loaded.
        device: cpu, cuda, cuda:1 or mps. For a model larger than one GPU a Hugging Face device map:
            `balanced` or `sequential` over all CUDA devices, or a mapping from module names to devices. A
            device map needs the bridge; residuals and logits are then on the embedding's device.
        dtype: float32, bfloat16, float16 or float64.
        backend: `hooked` (HookedTransformer; UserError if TransformerLens has no exact conversion), `bridge`
            (TransformerBridge), or `auto` (HookedTransformer if the conversion is exact, else the bridge).
        revision: Branch, tag or commit of a hub repository; None for its default branch.
        adapter: Directory of a plain LoRA adapter (PEFT's layout), which is merged into the weights.

    Returns:
        The TransformerLens model.

    Raises:
        UserError: A model, device, dtype or adapter does not exist or is not supported, or a file is damaged.

    Example:
        >>> wb.load_model("organism").cfg.n_layers
        4
    """
    if backend not in ("auto", "hooked", "bridge"):
        raise UserError(f"unknown backend {backend!r}: expected auto, hooked or bridge")
    kind, place = choose_dtype(dtype), choose_device(device)
    source = find_source(name, revision)
    if adapter is not None:
        source = replace(source, adapter=Path(adapter))
    checkpoint = open_model_directory(source.directory)
    tokenizer = load_tokenizer(checkpoint)
    reference = load_weights(source, checkpoint, kind, place)
    ends = configured_ends(reference)
    model, used, reason = wrap(reference, checkpoint, backend, kind, place)
    attach(model, tokenizer, source.name, ends)
    _PROVENANCE[model] = ModelProvenance(source, checkpoint.architecture, used, reason)
    show_as_table(model)
    return model


def load_weights(
    source: ModelSource, checkpoint: ModelDirectory, dtype: torch.dtype, device: Place
) -> PreTrainedModel:
    """Load Hugging Face's own model of a source, and merge the source's adapter if it names one.

    Args:
        source: Where the model is.
        checkpoint: The checked model directory.
        dtype: Dtype of the weights.
        device: Device or device map.

    Raises:
        UserError: The weights do not fit into memory or the config, or the adapter does not fit the model.
    """
    refuse_too_large(checkpoint, dtype, device, source.name)
    if source.adapter is None:
        return load_reference(checkpoint, dtype, device)
    adapter = open_adapter(source.adapter)
    reference = load_reference(checkpoint, dtype, device)
    merge_adapter(reference, adapter, source.directory.name)
    return reference


def provenance(model: Any) -> ModelProvenance | None:
    """Return a model's origin (source, architecture, backend); None if `load_model` did not load it."""
    return _PROVENANCE.get(model)


def configured_ends(reference: PreTrainedModel) -> tuple[int, ...]:
    """Return the token ids at which Hugging Face's `generate` would stop for this model.

    They are read from generation_config.json, or from the config if that file is missing.
    """
    return end_ids(getattr(reference.generation_config, "eos_token_id", None))


def attach(
    model: HookedTransformer | TransformerBridge,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    ends: tuple[int, ...] = (),
) -> None:
    """Give a model its tokenizer, its name and the tokens that end its replies.

    The tokenizer is attached unchanged. (TransformerLens's own method would reload it and change its BOS
    token.)

    Args:
        model: The TransformerLens model, changed in place.
        tokenizer: The model's tokenizer.
        name: The name for `cfg.model_name`.
        ends: Ids that end a reply according to the generation config.
    """
    model.__dict__[CONFIGURED_ENDS] = ends
    model.tokenizer = tokenizer
    model.cfg.default_prepend_bos = False
    model.cfg.tokenizer_prepends_bos = len(tokenizer("")["input_ids"]) > 0
    model.cfg.model_name = name


def wrap(
    reference: PreTrainedModel,
    checkpoint: ModelDirectory,
    backend: Backend,
    dtype: torch.dtype,
    device: Place,
) -> tuple[HookedTransformer | TransformerBridge, Literal["hooked", "bridge"], str | None]:
    """Wrap a Hugging Face model in the requested backend.

    Args:
        reference: Hugging Face's own model.
        checkpoint: The model directory it was loaded from.
        backend: `hooked`, `bridge`, or `auto` for HookedTransformer if the conversion is exact, else the
            bridge.
        dtype: Dtype of the weights.
        device: Device or device map.

    Returns:
        The TransformerLens model, the backend in use, and why HookedTransformer was not possible (None if the
        model is one, or if it was not tried).

    Raises:
        UserError: Neither backend supports the model, or `hooked` was requested and is not exact.
    """
    reason = None
    if backend != "bridge":
        try:
            if spreads(device):
                raise NotExpressible("its weights are where a device map puts them")
            config = hooked_config(checkpoint.config, checkpoint.architecture, dtype, str(device))
            return to_hooked(reference, config), "hooked", None
        except NotExpressible as error:
            reason = str(error)
            if backend == "hooked":
                raise UserError(
                    f"HookedTransformer cannot hold {checkpoint.directory} exactly ({reason}); use the bridge"
                ) from error
    return _to_bridge(reference, checkpoint), "bridge", reason


def _to_bridge(reference: PreTrainedModel, checkpoint: ModelDirectory) -> TransformerBridge:
    try:
        bridge = build_bridge_from_module(
            reference, checkpoint.architecture, hf_config=reference.config, model_name=checkpoint.architecture
        )
        return bridge.eval().requires_grad_(False)  # the bridge's copies of joint weights are new parameters
    except (ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"TransformerLens knows no {checkpoint.architecture}: {error}") from error


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the torch dtype of a name such as `bfloat16`; UserError for an unknown or a quantised one."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if re.search(r"(4|8)[-_ ]?bit|int4|int8|[nf]p?4|fp8|awq|gptq|^q\d", dtype.lower()):
        raise UserError(
            f"dtype {dtype!r}: quantised weights are not supported, gradients and hooks need plain ones: expected {', '.join(DTYPES)} "
            "(a quantised GGUF file is read as plain weights)"
        )
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def choose_device(device: Place) -> Place:
    """Check that this machine has a device, or all devices of a device map, and return it.

    Args:
        device: cpu, cuda, cuda:1 or mps; or `balanced`, `sequential` or a mapping from module names to
            devices.

    Raises:
        UserError: A device is unknown or not available.
    """
    if isinstance(device, Mapping):
        return {name: _one_device(_name(place)) for name, place in device.items()}
    if spreads(device):
        if not torch.cuda.is_available():
            raise UserError(f"device {device!r} spreads a model over CUDA devices: none is available here")
        return device
    return _one_device(device)


def _one_device(device: str) -> str:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}: expected cpu, cuda, cuda:0 or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(
        kind, False
    )
    if not there:
        raise UserError(f"device {device!r} is not available here")
    return device


def _name(place: str | int) -> str:
    """Name of a device in a device map; Accelerate numbers the CUDA devices."""
    return f"cuda:{place}" if isinstance(place, int) else place
