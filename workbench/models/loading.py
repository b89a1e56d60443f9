"""One door to every model: a name or a directory in, a TransformerLens model out, whose logits are Hugging Face's."""

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
    """Where a loaded model came from.

    The source (name, directory, hub commit), its architecture, the backend that runs it, and why it is not
    HookedTransformer where that was tried first.
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
    """Loads a model with its tokenizer, in evaluation mode, without gradients of its weights.

    Weights are neither folded nor centred: the logits are Hugging Face's. Nothing is downloaded for a
    directory, no code of a checkpoint runs, pickles are refused. Text never gets a second BOS token:
    `default_prepend_bos` is off.

    Args:
        name: `organism`, `smollm2-135m`, `smollm2-sycophant`, `smollm2-personas`, `llama-3.1-8b-instruct`,
            `qwen2.5-7b-instruct`, `gemma-3-4b-it`, a Hugging Face directory (safetensors), a GGUF file (or a
            directory with one), or `owner/repository`. Of a multimodal Gemma 3 the text part is loaded.
        device: cpu, cuda, cuda:1 or mps; for a model larger than one GPU a Hugging Face device map:
            `balanced` or `sequential` over all CUDA devices, or a mapping from module names to devices. A
            device map needs the bridge; residuals and logits are then on the embedding's device.
        dtype: float32, bfloat16, float16 or float64.
        backend: `hooked` (HookedTransformer; UserError where TransformerLens has no exact conversion),
            `bridge` (TransformerBridge), or `auto`: the first if it is exact, else the second.
        revision: Of a hub repository.
        adapter: The directory of a plain LoRA adapter (PEFT's layout), which is merged into the weights.

    Returns:
        The TransformerLens model.

    Raises:
        UserError: A model, device, dtype or adapter that does not exist or is not supported, or a damaged
            file.

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
    """Hugging Face's own model of a source, its adapter merged where it names one. UserError as of both parts."""
    refuse_too_large(checkpoint, dtype, device, source.name)
    if source.adapter is None:
        return load_reference(checkpoint, dtype, device)
    adapter = open_adapter(source.adapter)
    reference = load_reference(checkpoint, dtype, device)
    merge_adapter(reference, adapter, source.directory.name)
    return reference


def provenance(model: Any) -> ModelProvenance | None:
    """Where `load_model` got this model from; None for models made elsewhere."""
    return _PROVENANCE.get(model)


def configured_ends(reference: PreTrainedModel) -> tuple[int, ...]:
    """The tokens at which Hugging Face's generate would stop: of generation_config.json, else of the config."""
    return end_ids(getattr(reference.generation_config, "eos_token_id", None))


def attach(
    model: HookedTransformer | TransformerBridge,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    ends: tuple[int, ...] = (),
) -> None:
    """Gives a model its tokenizer, its name and the tokens that end its replies.

    The tokenizer stays untouched (TransformerLens's own way would reload it and change its BOS), its name and
    the tokens that end its replies.
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
    """The model in its backend, which one it is, and why it is not the HookedTransformer that was tried first."""
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
        return bridge.eval().requires_grad_(False)  # its own copies of joint weights are new parameters
    except (ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"TransformerLens knows no {checkpoint.architecture}: {error}") from error


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of a name; UserError for an unknown one."""
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
    """The device's name, or the device map, when it is there; UserError otherwise."""
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
    """Accelerate's device maps number the CUDA devices."""
    return f"cuda:{place}" if isinstance(place, int) else place
