"""Check a Hugging Face directory, which may be damaged, unsupported or hostile, before its use.

1. `config.json` is read as plain JSON: it must describe a causal language model, without `auto_map` (code)
   and without quantisation.
2. Weights must be safetensors. Every file named by the index must be in the directory, open as a whole, and
   hold the tensors that the index lists for it. Links may lead out of the directory only within one
   repository of the hub's cache.
3. The multimodal Gemma 3 layout is recognised, so that its text part can be selected by name.
4. `load_reference` loads Hugging Face's own model, with every weight found and finite; `load_tokenizer` loads
   a tokenizer whose ids all fit the model's vocabulary.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from workbench.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: One device, or a Hugging Face device map: a strategy over all CUDA devices, or a device for each module.
Place = str | Mapping[str, str | int]
SPREADS = ("balanced", "sequential")
#: Weights that old checkpoints store although every model computes them.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|position_ids$")
#: Weights of a multimodal checkpoint outside its text part.
_OTHER_PARTS = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector|audio_tower)\.")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Renaming of the text part's weights in multimodal Gemma 3 checkpoints, older names first.
_TEXT_PART = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}


@dataclass(frozen=True)
class ModelDirectory:
    """A model directory that passed all checks.

    Attributes:
        directory: Its path.
        config: Config of the text model.
        architecture: The Hugging Face class that runs it, such as `LlamaForCausalLM`.
        shards: The weight files.
        multimodal: Whether the text model is part of a larger checkpoint.
    """

    directory: Path
    config: PreTrainedConfig
    architecture: str
    shards: tuple[Path, ...]
    multimodal: bool


def open_model_directory(directory: Path) -> ModelDirectory:
    """Check a model directory without loading its weights, and return it.

    Args:
        directory: A Hugging Face directory.

    Raises:
        UserError: A file is missing or broken, or the model is refused; the message names the file.
    """
    if not directory.is_dir():
        raise UserError(f"no model directory at {directory}")
    _refuse_links_out(directory)
    _refuse_code(directory)
    raw = read_json(directory / "config.json")
    if raw.get("quantization_config"):
        quantised = raw["quantization_config"]
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"{directory / 'config.json'}: expected plain weights, found quantisation {str(method)[:60]!r}"
        )
    shards = _shards(directory)
    _refuse_absurd_sizes(directory / "config.json", raw, sum(shard.stat().st_size for shard in shards))
    config = _read_config(directory)
    multimodal = config.model_type == "gemma3"
    text = config.text_config if multimodal else config
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{directory / 'config.json'}: model type {config.model_type!r} is no causal language model"
        )
    architecture = causal_model_class(type(text)).__name__
    return ModelDirectory(directory, text, architecture, shards, multimodal)


def causal_model_class(config: type[PreTrainedConfig]) -> Any:
    """Return Hugging Face's causal language model class for a config class; KeyError if there is none."""
    return MODEL_FOR_CAUSAL_LM_MAPPING[config]


def spreads(device: Place) -> bool:
    """Whether `device` is a device map (`balanced`, `sequential` or a mapping) and not a single device."""
    return isinstance(device, Mapping) or device in SPREADS


def load_reference(checkpoint: ModelDirectory, dtype: torch.dtype, device: Place = "cpu") -> PreTrainedModel:
    """Load Hugging Face's own model: eager attention, evaluation mode, gradients of weights off.

    Args:
        checkpoint: The checked directory.
        dtype: Dtype of the weights.
        device: Device or device map.

    Raises:
        UserError: A weight is missing, has another shape, has no place in the model, or is not finite; or a
            device map leaves weights on a CPU or a disk and moves them to a GPU only when they run.
    """
    cls = causal_model_class(type(checkpoint.config))
    with quiet_transformers():
        try:
            model, info = cls.from_pretrained(
                checkpoint.directory,
                config=checkpoint.config,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                key_mapping=_TEXT_PART if checkpoint.multimodal else None,
                device_map=device if spreads(device) else None,
            )
        except UserError:
            raise
        except Exception as error:  # transformers raises what its arithmetic on a strange config raises
            raise UserError(
                f"{checkpoint.directory}: the weights do not fit the config: {one_line(error)}"
            ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if info.get(kind):
            names = sorted(str(name) for name in info[kind])
            raise UserError(
                f"{checkpoint.directory}: {len(names)} weights are {kind.split('_')[0]}, the first is {names[0]}"
            )
    _refuse_unexpected(checkpoint, info.get("unexpected_keys") or ())
    _refuse_offloaded(
        checkpoint, getattr(model, "hf_device_map", {})
    )  # before the finite check: offloaded weights have no values to check
    if not spreads(device):
        model = model.to(device)
    for name, weight in model.named_parameters():
        if not all_finite(weight):
            raise UserError(f"{checkpoint.directory}: weight {name} holds values that are not finite")
    return model.eval().requires_grad_(False)


def all_finite(weight: torch.Tensor) -> bool:
    """Whether no value is infinite or NaN; 20 times faster than `isfinite` of every value."""
    return weight.numel() == 0 or bool(torch.stack(torch.aminmax(weight)).isfinite().all())


def load_tokenizer(checkpoint: ModelDirectory) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory.

    If it has no padding token, the end-of-sequence token is used for padding.

    Args:
        checkpoint: The checked directory.

    Raises:
        UserError: There is no usable tokenizer, or it has ids beyond the model's vocabulary.
    """
    try:
        with quiet_transformers(), _panics_without_print():
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.directory, local_files_only=True, trust_remote_code=False
            )
            tokenizer("a")  # a setting of a wrong type shows only here
    except Exception as error:  # tokenizers raises plain Exception
        raise UserError(f"{checkpoint.directory}: no usable tokenizer: {one_line(error)}") from error
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= checkpoint.config.vocab_size:
        raise UserError(
            f"{checkpoint.directory}: the tokenizer has ids up to {highest}, the model a vocabulary of "
            f"{checkpoint.config.vocab_size}: it is another model's tokenizer"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file; UserError if the file is missing, not JSON, or holds another type."""
    if not file.is_file():
        raise UserError(f"missing file {file}")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (
        ValueError,
        RecursionError,
        OSError,
    ) as error:  # ValueError: no UTF-8, no JSON, a number of thousands of digits
        raise UserError(f"{file}: no JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected a JSON object, found a {type(value).__name__}")
    return value


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers (progress bars, log messages) while the `with` block runs.

    A damaged tokenizer.json can make the tokenizers library panic. The panic derives from BaseException alone
    and would escape handlers of errors, so it is raised as a RuntimeError.
    """
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except BaseException as error:
        if not _panic(error):
            raise
        raise RuntimeError(f"the library that reads it gave up: {error}") from None
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _panics_without_print() -> Iterator[None]:
    """Suppress the error output of a Rust library that panics, since the exception has the same text.

    If no panic occurs, everything that was written to error output is shown at the end of the block.
    """
    if sys.stderr is not None:  # None where the process has no error output
        sys.stderr.flush()
    try:
        own = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as held, open(own, "wb", buffering=0) as shown:
        os.dup2(held.fileno(), 2)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = _panic(error)
            raise
        finally:
            os.dup2(shown.fileno(), 2)
            held.seek(0)
            if not panicked:
                shown.write(held.read())


def _panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of at most 300 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _refuse_unexpected(checkpoint: ModelDirectory, keys: Iterable[str]) -> None:
    """Raise UserError for weights that have no place in the config's model, such as biases or whole layers.

    Without them it would silently be another model.
    """
    names = sorted(
        str(key)
        for key in keys
        if not _IGNORED.search(str(key)) and not (checkpoint.multimodal and _OTHER_PARTS.match(str(key)))
    )
    if names:
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise UserError(
            f"{checkpoint.directory}: {len(names)} weights of the file have no place in the model that config.json describes: {listed}"
        )


#: Sizes in a config that are compared with the bytes of the weights files.
_SIZES = frozenset(
    {
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
        "n_layer",
        "n_embd",
        "n_head",
        "n_inner",
        "n_positions",
    }
)
_LONGEST = 1 << 40


def _refuse_absurd_sizes(file: Path, config: Mapping[str, Any], n_bytes: int) -> None:
    """Raise UserError for sizes below 1 or too large for the bytes of the weights.

    Building such a model would take minutes or all memory before the weights are read.
    """
    for name, value in (*config.items(), *(config.get("text_config") or {}).items()):
        if name not in _SIZES or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        layers = name in ("num_hidden_layers", "n_layer")
        most = (
            _LONGEST
            if name in ("max_position_embeddings", "n_positions")
            else n_bytes // (1000 if layers else 1) + 1000
        )
        if not 1 <= value <= most:
            raise UserError(
                f"{file}, field {name}: expected a number from 1 to {most} for weights of {n_bytes} bytes, found {str(value)[:30]}"
            )


def _refuse_offloaded(checkpoint: ModelDirectory, placed: Mapping[str, Any]) -> None:
    """Raise UserError for offloaded weights; TransformerBridge bypasses the hooks that would move them."""
    outside = [name for name, place in placed.items() if str(place) in ("cpu", "disk", "meta")]
    if outside and len(set(map(str, placed.values()))) > 1:
        raise UserError(
            f"{checkpoint.directory} does not fit into the GPUs: {len(outside)} modules are left out, the first is {outside[0]}"
        )


def _refuse_links_out(directory: Path) -> None:
    """Raise UserError for links that lead out of the directory.

    In the hub's cache, links may lead to the blobs of the same repository.
    """
    root = directory.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    for entry in directory.iterdir():
        try:
            inside = entry.resolve().is_relative_to(root)
        except (OSError, RuntimeError) as error:  # links that lead to each other
            raise UserError(f"{entry} is a link that leads nowhere: {one_line(error)}") from error
        if not inside:
            raise UserError(f"{entry} is a link that leaves the model's directory")


def _refuse_code(directory: Path) -> None:
    """Raise UserError for a checkpoint that needs its own code (`auto_map`) or is an adapter.

    An adapter would silently load another model.
    """
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        file = directory / name
        if file.is_file() and _mentions(read_json(file), "auto_map"):
            raise UserError(
                f"{file} needs code of its own (auto_map): refused, no code is run from a checkpoint"
            )
    if (directory / "adapter_config.json").exists():
        raise UserError(f"{directory} holds an adapter: merge it into its base model first")


def _mentions(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_mentions(inner, key) for inner in value.values())
    return isinstance(value, list) and any(_mentions(inner, key) for inner in value)


def _read_config(directory: Path) -> PreTrainedConfig:
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its arithmetic on a strange config raises
        raise UserError(
            f"{directory / 'config.json'}: not understood by transformers: {one_line(error)}"
        ) from error


def _shards(directory: Path) -> tuple[Path, ...]:
    """Return the weight files; each is opened once to check that it is whole.

    A single file takes precedence over an index that was left over, as in transformers.
    """
    if (directory / SINGLE).exists():
        _names(directory / SINGLE)
        return (directory / SINGLE,)
    if (directory / INDEX).exists():
        return _indexed_shards(directory)
    pickles = sorted(f.name for f in directory.iterdir() if f.suffix in PICKLES)
    found = (
        f"{', '.join(pickles)} (pickles can run code: refused; convert to safetensors first)"
        if pickles
        else "no weights"
    )
    raise UserError(f"{directory}: expected {SINGLE} or {INDEX}, found {found}")


def _indexed_shards(directory: Path) -> tuple[Path, ...]:
    index = directory / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: expected a weight_map from weights to files")
    held: dict[str, set[str]] = {}
    for weight, name in weight_map.items():
        held.setdefault(name, set()).add(weight)
    for name, weights in held.items():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{index}: weight {min(weights)} points to {name!r}: expected a safetensors file in the same directory"
            )
        if not (directory / name).is_file():
            raise UserError(f"{index}: file {name} is missing")
        lacking = weights - _names(directory / name)
        if lacking:
            raise UserError(
                f"{directory / name}: weight {min(lacking)} is missing although the index lists it there"
            )
    return tuple(directory / name for name in sorted(held))


def _names(shard: Path) -> set[str]:
    """Names of the tensors in a safetensors file; the library checks header, offsets and length."""
    try:
        with safe_open(shard, framework="pt") as handle:
            return set(handle.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{shard}: broken or cut short: {one_line(error)}") from error
