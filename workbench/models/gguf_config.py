"""Make a Hugging Face config from the metadata of a GGUF file, for the families that the workbench runs.

| GGUF | config | what llama.cpp's converter changed in the weights, undone here |
|---|---|---|
| llama (Mistral files too) | LlamaConfig | rows of q and k reordered for its rotary embedding |
| mistral | MistralConfig | rows of q and k reordered for its rotary embedding |
| qwen2, qwen3 | Qwen2Config, Qwen3Config | nothing |
| gemma2, gemma3 | Gemma2Config, Gemma3TextConfig | norms stored as weight + 1 |

transformers' own GGUF reader ignores some metadata that is used here: frequency factors of Llama 3.1
(`rope_freqs.weight`), linear and YaRN scaling of positions, soft-caps, windows and biases. Metadata that is
not understood is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from workbench.errors import UserError
from workbench.models.gguf_header import GgufHeader

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class GgufFamily:
    """How the GGUF files of one model family differ from Hugging Face's checkpoints.

    Attributes:
        config: The family's Hugging Face config class.
        rotated: Whether llama.cpp's converter reordered the rows of the q and k weights for its rotary
            embedding.
        norm_offset: Constant that llama.cpp's converter added to the norm weights (1 for Gemma), which is
            subtracted when the file is read.
    """

    config: Callable[..., PreTrainedConfig]
    rotated: bool = False
    norm_offset: float = 0.0


FAMILIES = {
    "llama": GgufFamily(LlamaConfig, rotated=True),
    "mistral": GgufFamily(MistralConfig, rotated=True),
    "qwen2": GgufFamily(Qwen2Config),
    "qwen3": GgufFamily(Qwen3Config),
    "gemma2": GgufFamily(Gemma2Config, norm_offset=1.0),
    "gemma3": GgufFamily(Gemma3TextConfig, norm_offset=1.0),
}
ROPE_FACTORS = "rope_freqs.weight"
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
#: Norm names that mean different weights in Gemma (True) and in other families (False): Gemma has a norm
#: before and a norm after each half of a block.
_NORMS = {
    False: {"ffn_norm": "post_attention_layernorm"},
    True: {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_NAME = re.compile(r"(?:blk\.(?P<block>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")


def weight_name(header: GgufHeader, name: str) -> str | None:
    """Translate a GGUF tensor name to Hugging Face's; None if Hugging Face's model has no such tensor."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    if match["block"] is None:
        return f"{_TOP[match['part']]}.{match['kind']}" if match["part"] in _TOP else None
    part = {**_IN_BLOCK, **_NORMS[header.architecture.startswith("gemma")]}.get(match["part"])
    return None if part is None else f"model.layers.{match['block']}.{part}.{match['kind']}"


def make_config(header: GgufHeader, rope_factors: Array | None = None) -> PreTrainedConfig:
    """Make the Hugging Face config of a GGUF file's model.

    Args:
        header: The file's header.
        rope_factors: Values of the tensor `rope_freqs.weight`; None if the file has none.

    Raises:
        UserError: Metadata is missing, or describes something that the family's Hugging Face model cannot do.
    """
    family, shapes = FAMILIES[header.architecture], {tensor.name: tensor.shape for tensor in header.tensors}
    if header.of_family("expert_count"):
        raise UserError(f"{header.file}: a mixture of experts ({header.architecture}) is not supported")
    if "token_embd.weight" not in shapes:
        raise UserError(f"{header.file} has no token_embd.weight: no language model")
    heads = _needed(header, "attention.head_count")
    d_model = _needed(header, "embedding_length")
    fields = {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": d_model,
        "num_hidden_layers": _needed(header, "block_count"),
        "intermediate_size": _needed(header, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.of_family("attention.head_count_kv") or heads,
        "max_position_embeddings": _needed(header, "context_length"),
        "rms_norm_eps": _needed(header, "attention.layer_norm_rms_epsilon"),
        "head_dim": header.of_family("attention.key_length")
        or header.of_family("rope.dimension_count")
        or d_model // heads,
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.metadata.get("tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
    }
    if any(
        not isinstance(fields[name], int)
        for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    ):
        raise UserError(f"{header.file}: blocks of different widths are not supported")
    if header.architecture in ("llama", "mistral"):
        fields["attention_bias"] = "blk.0.attn_q.bias" in shapes
        fields["mlp_bias"] = "blk.0.ffn_up.bias" in shapes
    if header.architecture == "mistral":
        fields["sliding_window"] = header.of_family("attention.sliding_window")
    if header.architecture.startswith("gemma"):
        fields |= _gemma(header, heads, d_model)
    fields |= _positions(header, rope_factors, fields["head_dim"])
    return family.config(**fields)


def _needed(header: GgufHeader, key: str) -> Any:
    value = header.of_family(key)
    if value is None:
        raise UserError(f"{header.file}: metadata {header.architecture}.{key} is missing")
    return value


def _gemma(header: GgufHeader, heads: int, d_model: int) -> dict[str, Any]:
    """Config fields that Gemma has in addition: sliding window, layer types, soft-caps and attention scale.

    The attention scale is the head size, except in both 27B models, where it is d_model / heads. The 27B
    models are recognised by their numbers of blocks, as in llama.cpp.
    """
    fields: dict[str, Any] = {"sliding_window": _needed(header, "attention.sliding_window")}
    if (header.architecture, header.of_family("block_count")) in (("gemma2", 46), ("gemma3", 62)):
        fields["query_pre_attn_scalar"] = d_model // heads
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if (value := header.of_family(key)) is not None:
            fields[key] = value or None
    pattern = header.of_family("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        fields["layer_types"] = ["sliding_attention" if local else "full_attention" for local in pattern]
    elif pattern is not None:
        count = header.of_family("block_count")
        fields["layer_types"] = [
            "full_attention" if (n + 1) % pattern == 0 else "sliding_attention" for n in range(count)
        ]
    return fields


def _positions(header: GgufHeader, factors: Array | None, d_head: int) -> dict[str, Any]:
    """Return the config's `rope_parameters`: base frequency and scaling.

    Gemma 3 has one set for blocks with full attention and one for blocks with a sliding window.
    """
    theta = header.of_family("rope.freq_base", 10_000.0)
    if header.of_family("rope.dimension_count", d_head) != d_head:
        raise UserError(f"{header.file}: rotary embeddings of a part of each head are not supported")
    rope = {"rope_theta": theta, **_scaling(header)}
    if factors is not None:
        rope = {"rope_theta": theta, **_llama3(header, factors, theta, d_head)}
    if header.architecture == "gemma3":
        local = {"rope_theta": header.of_family("rope.freq_base_swa", 10_000.0), "rope_type": "default"}
        return {"rope_parameters": {"full_attention": rope, "sliding_attention": local}}
    return {"rope_parameters": rope}


def _scaling(header: GgufHeader) -> dict[str, Any]:
    kind = header.of_family(
        "rope.scaling.type", "linear" if header.of_family("rope.scale_linear") else "none"
    )
    factor = header.of_family("rope.scaling.factor") or header.of_family("rope.scale_linear") or 1.0
    if kind == "none" or factor == 1.0:
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": _needed(header, "rope.scaling.original_context_length"),
        }
    raise UserError(
        f"{header.file}: scaling of positions of type {kind!r} is not supported (linear and yarn are)"
    )


def _llama3(header: GgufHeader, factors: Array, theta: float, d_head: int) -> dict[str, Any]:
    """Recover the parameters of Llama 3.1's RoPE scaling from the frequency factors in the file.

    A frequency of wavelength w is divided by 1 if w < original / 4, by `factor` if w > original, and between
    them by a blend that is linear in original / w. `original` is a power of two in every published config, so
    the powers of two are tried.
    """
    factor = float(factors.max())
    wavelengths = 2 * math.pi * theta ** (np.arange(0, d_head, 2, dtype=np.float64) / d_head)
    for original in (2**n for n in range(4, 21)):
        blend = np.clip((original / wavelengths - 1.0) / 3.0, 0.0, 1.0)
        if len(factors) == len(wavelengths) and np.allclose(
            1 / factors, (1 - blend) / factor + blend, rtol=1e-3
        ):
            bounds = {
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
            return {"rope_type": "llama3", "factor": factor, **bounds}
    raise UserError(
        f"{header.file}: the frequency factors in {ROPE_FACTORS} are none of Llama 3's scaling: not supported"
    )
