"""Tiny GGUF files as llama.cpp's converter writes them: the `gguf` package's own writer and table of names, and the
converter's three changes to weights (rotary order of Llama's q and k, norms + 1 of Gemma, factors of Llama
3.1's rope)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import quantize
from transformers import PreTrainedModel, PreTrainedTokenizerFast

NORMAL, CONTROL, UNUSED = 1, 3, 5


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None,
    architecture: str,
    quantisation: str = "F32",
    name: str = "tiny",
    **extra: Any,
) -> Path:
    """Writes a Hugging Face model to a GGUF file and gives the path back. extra: metadata beyond what all files have, under the
    family's prefix where the key has no dot of its own, as `attention__sliding_window=6` (two underscores
    stand for a dot)."""
    config = model.config
    writer = GGUFWriter(file, architecture)
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(float(rope.get("full_attention", rope)["rope_theta"]))
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(d_head)
    writer.add_value_length(d_head)
    if architecture == "llama":
        writer.add_rope_dimension_count(d_head)
    for key, value in extra.items():
        _add(writer, f"{architecture}.{key.replace('__', '.')}", value)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer, config.vocab_size)
    for tensor, kind, values in _tensors(model, architecture, quantisation):
        writer.add_tensor(tensor, values, raw_dtype=kind)
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, d_head))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    """A byte-level BPE with its merges and template; rows of the model that belong to no token are named [PADn]."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokens.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types(
        [CONTROL if index in special else NORMAL if index in tokens else UNUSED for index in range(size)]
    )
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_add_bos_token(tokenizer.bos_token_id is not None)
    writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: PreTrainedModel, architecture: str, quantisation: str) -> Any:
    """(GGUF name, type, values) of each weight; matrices whose rows hold whole blocks are quantised."""
    config = model.config
    named = next(key for key, value in MODEL_ARCH_NAMES.items() if value == architecture)
    table = get_tensor_name_map(named, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.detach().to(torch.float32).numpy()
        stem, kind = name.rsplit(".", 1)
        if architecture == "llama" and stem.rsplit(".", 1)[-1] in heads:
            values = _rotated(values, heads[stem.rsplit(".", 1)[-1]])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + np.float32(1)
        chosen = (
            GGMLQuantizationType[quantisation]
            if values.ndim == 2 and values.shape[1] % 32 == 0
            else GGMLQuantizationType.F32
        )
        yield f"{table.get_name(stem)}.{kind}", chosen, quantize(values, chosen)


def _rotated(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `permute`: halves of each head become pairs."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


def llama3_factors(rope: dict[str, Any], d_head: int) -> np.ndarray:
    """llama.cpp's loop over frequencies (convert_hf_to_gguf, LlamaModel.generate_extra_tensors), one frequency at a time."""
    factors = []
    for i in range(0, d_head, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / d_head)
        original, low, high = (
            rope["original_max_position_embeddings"],
            rope["low_freq_factor"],
            rope["high_freq_factor"],
        )
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)
