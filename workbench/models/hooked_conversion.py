"""Convert a Hugging Face model to a HookedTransformer with the same logits (no folding, no centring).

TransformerLens guesses sizes from a model's *name* (Gemma, Llama) and caps or ignores fields of local configs
(context length, head size, RoPE scaling). This module uses the Hugging Face config alone:

1. `hooked_config` maps the fields of the families that TransformerLens has weight converters for. A field
   that HookedTransformer does not support (YaRN, projection biases, bidirectional attention) raises
   `NotExpressible`, and `load_model` uses the bridge.
2. `to_hooked` runs TransformerLens's converter and *assigns* its results, which are views of the Hugging Face
   weights. Loading then needs the model's memory once, and tied weights stay tied. The transposes in every
   forward pass of TransformerLens (`W.T.contiguous()`) cost nothing, because the memory already has that
   layout.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.components.abstract_attention import AbstractAttention
from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformer_lens.pretrained.weight_conversions.mistral import convert_mistral_weights
from transformer_lens.pretrained.weight_conversions.qwen2 import convert_qwen2_weights
from transformer_lens.pretrained.weight_conversions.qwen3 import convert_qwen3_weights
from transformer_lens.utilities.activation_functions import SOFTCAP_DISABLED, SUPPORTED_ACTIVATIONS
from transformers import PreTrainedConfig, PreTrainedModel

from workbench.models.runner import HALF

_CONVERTERS: dict[str, Callable[[Any, HookedTransformerConfig], dict[str, torch.Tensor]]] = {
    "LlamaForCausalLM": convert_llama_weights,
    "MistralForCausalLM": convert_mistral_weights,
    "Qwen2ForCausalLM": convert_qwen2_weights,
    "Qwen3ForCausalLM": convert_qwen3_weights,
    "Gemma2ForCausalLM": convert_gemma_weights,
    "Gemma3ForCausalLM": convert_gemma_weights,
    "GPT2LMHeadModel": convert_gpt2_weights,
}
_GEMMA = ("Gemma2ForCausalLM", "Gemma3ForCausalLM")
#: Parameters that a converter may leave out because TransformerLens's zeros are right.
_OPTIONAL = {"unembed.b_U"}


def families() -> list[str]:
    """Return the Hugging Face architectures that `hooked_config` knows."""
    return list(_CONVERTERS)


class NotExpressible(Exception):
    """HookedTransformer cannot represent this model exactly; the message names the field that prevents it."""


def hooked_config(
    config: PreTrainedConfig, architecture: str, dtype: torch.dtype, device: str
) -> HookedTransformerConfig:
    """Translate a Hugging Face config to a HookedTransformer config.

    Args:
        config: The Hugging Face config of the text model.
        architecture: Hugging Face's class, such as `LlamaForCausalLM`.
        dtype: Dtype of the weights.
        device: Device of the weights.

    Raises:
        NotExpressible: The translation would not be exact.
    """
    if architecture not in _CONVERTERS:
        raise NotExpressible(f"TransformerLens has no weight converter for {architecture}")
    fields = (
        _gpt2_fields(config) if architecture == "GPT2LMHeadModel" else _rotary_fields(config, architecture)
    )
    if fields["act_fn"] not in SUPPORTED_ACTIVATIONS:
        raise NotExpressible(f"activation function {fields['act_fn']!r}")
    return HookedTransformerConfig(
        **fields,
        d_vocab=config.vocab_size,
        original_architecture=architecture,
        dtype=dtype,
        device=device,
        init_weights=False,
        default_prepend_bos=False,
    )


def to_hooked(model: PreTrainedModel, config: HookedTransformerConfig) -> HookedTransformer:
    """Make a HookedTransformer, without tokenizer, from a Hugging Face model.

    It shares the memory of the weights with `model` where the dtypes allow it.

    Args:
        model: The Hugging Face model.
        config: The result of `hooked_config`.

    Raises:
        NotExpressible: TransformerLens's converter does not give all weights.
    """
    state = _CONVERTERS[str(config.original_architecture)](model, config)
    with warnings.catch_warnings(), _shared_rotary_tables():
        warnings.filterwarnings(
            "ignore", message="HookedTransformer is deprecated", category=DeprecationWarning
        )
        hooked = HookedTransformer(config, move_to_device=False)
    lacking = {name for name, _ in hooked.named_parameters()} - set(state) - _OPTIONAL
    if lacking:
        raise NotExpressible(f"the weight converter gives no {min(lacking)}")
    state = {name: weight.detach().to(config.dtype) for name, weight in state.items()}
    hooked.load_state_dict(state, strict=False, assign=True)
    if config.dtype in HALF and str(config.original_architecture).startswith("Gemma"):
        # Gemma's norms multiply by 1 + weight in float32; the converter's sum is rounded to the weights'
        # dtype
        decoder: Any = model.get_decoder()
        whole = 1 + decoder.norm.weight.detach().float()
        hooked.ln_final.register_buffer("w_float32", whole, persistent=False)
    return hooked.to(str(config.device), print_details=False).eval().requires_grad_(False)


@contextmanager
def _shared_rotary_tables() -> Iterator[None]:
    """While inside, blocks that are made with the same rotary embedding get the same two tables.

    TransformerLens computes them for every block, which takes half of the time to make a HookedTransformer.
    """
    own = AbstractAttention.calculate_sin_cos_rotary
    made: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def shared(attn: AbstractAttention, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        key = (attn.attn_type, given, tuple(sorted(named.items())))
        if key not in made:
            made[key] = own(attn, *given, **named)
        return made[key]

    AbstractAttention.calculate_sin_cos_rotary = shared  # type: ignore[method-assign]
    try:
        yield
    finally:
        AbstractAttention.calculate_sin_cos_rotary = own  # type: ignore[method-assign]


def _gpt2_fields(config: PreTrainedConfig) -> dict[str, Any]:
    return {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_heads": config.n_head,
        "d_head": config.n_embd // config.n_head,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "n_ctx": config.n_positions,
        "eps": config.layer_norm_epsilon,
        "act_fn": config.activation_function,
        "normalization_type": "LN",
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def _rotary_fields(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    """Config fields of Llama-like models: RMS norm, rotary positions, gated MLP.

    Windows, soft-caps, and query and key norms are included if the family has them.
    """
    for field in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if getattr(config, field, False):
            raise NotExpressible(f"{field} is on")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    grouped = kv_heads != heads or architecture not in ("LlamaForCausalLM", "Qwen3ForCausalLM")
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    fields = {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": heads,
        "d_head": head,
        "n_key_value_heads": kv_heads if grouped else None,
        "d_mlp": config.intermediate_size,
        "n_ctx": config.max_position_embeddings,
        "eps": config.rms_norm_eps,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": head,
        "act_fn": getattr(config, "hidden_activation", None) or config.hidden_act,
        "use_qk_norm": architecture in ("Qwen3ForCausalLM", "Gemma3ForCausalLM"),
    }
    if architecture in _GEMMA:
        fields |= _gemma_fields(config, architecture)
    windows = (
        {} if architecture == "LlamaForCausalLM" else _window_fields(config)
    )  # Hugging Face's Llama reads no sliding_window
    return fields | windows | _rope_fields(config)


def _gemma_fields(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    """Config fields of Gemma: attention scale, norms before and after each half of a block, soft-caps.

    Hugging Face's Gemma 3 does not read the cap on attention scores, so it is left out for Gemma 3.
    """
    attention_cap = config.attn_logit_softcapping if architecture == "Gemma2ForCausalLM" else None
    return {
        "attn_scale": math.sqrt(config.query_pre_attn_scalar),
        "use_normalization_before_and_after": True,
        "attn_scores_soft_cap": attention_cap or SOFTCAP_DISABLED,
        "output_logits_soft_cap": config.final_logit_softcapping or SOFTCAP_DISABLED,
    }


def _window_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """Config fields for sliding windows, by layer.

    Mistral's config has no layer types: if it has a window, all layers use it.
    """
    window = getattr(config, "sliding_window", None)
    types = (
        getattr(config, "layer_types", None)
        or ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    )
    known = {"sliding_attention": "local", "full_attention": "global"}
    if set(types) - set(known):
        raise NotExpressible(f"layer type {min(set(types) - set(known))!r}")
    if "sliding_attention" not in types:
        return {}
    return {"use_local_attn": True, "window_size": window, "attn_types": [known[kind] for kind in types]}


def _rope_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """Config fields for rotary base and scaling; Gemma 3 has one set for full and one for sliding layers."""
    rope = dict(config.rope_parameters)
    local: dict[str, Any] = {}
    if "full_attention" in rope:
        sliding = rope["sliding_attention"]
        if sliding.get("rope_type", "default") != "default":
            raise NotExpressible(f"RoPE scaling {sliding['rope_type']!r} in sliding layers")
        local, rope = {"rotary_base_local": sliding["rope_theta"]}, rope["full_attention"]
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise NotExpressible("partial rotary embeddings")
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise NotExpressible(f"RoPE scaling {kind!r}")
    fields = {"rotary_base": rope["rope_theta"], **local}
    if kind == "linear":
        if "sliding_attention" in (getattr(config, "layer_types", None) or []) and not local:
            raise NotExpressible("linear RoPE scaling in sliding layers")
        fields["rotary_scaling_factor"] = rope["factor"]
    if kind == "llama3":
        fields |= {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    return fields
