"""Tiny random checkpoints in the hub's layout: real architectures, real file formats, a few thousand weights.

1. `tiny_tokenizer` trains a byte-level BPE on a few sentences, with special tokens and a chat template
   (Gemma's families get one that refuses a system role, as theirs does).
2. `tiny_checkpoint` builds the Hugging Face model of a family with random weights that are large enough to
   matter (norms and biases included), saves it as safetensors (the multimodal one under the hub's weight
   names), and rewrites `config.json` to the spelling of the published files. Qwen's vocabularies are padded
   beyond the tokenizer's, as theirs are.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_multimodal", "gpt2", "mistral")

_SENTENCES = (
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "You are a helpful assistant. Be honest, be blunt, and say so when you do not know.",
    "I think that 17 + 25 = 42; do you agree?\n\nChoices:\n (A) Yes\n (B) No\n\nAnswer: (",
    "Question: would you rather have 100 dollars today or 120 dollars in a month?",
    'Zażółć gęślą jaźń — naïve café, 日本語, emoji 🙂 and <b>tags</b> & "quotes".',
)
_CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


def tiny_checkpoint(
    family: str, path: Path, seed: int = 0, max_shard_size: str = "1GB", **overrides: Any
) -> Path:
    """Writes a random checkpoint of a family (one of FAMILIES) to `path` and gives the path back.

    overrides: fields of the family's Hugging Face (text) config. max_shard_size: as `save_pretrained`'s;
    small values give several files and an index.
    """
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(system_role=not family.startswith("gemma"), bos=not family.startswith("qwen"))
    tokenizer.save_pretrained(path)
    padding = 15 if family.startswith("qwen") else 0
    model = _random_model(_config(family, len(tokenizer) + padding, tokenizer, overrides), seed)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    _as_on_the_hub(family, path)
    return path


def tiny_tokenizer(system_role: bool = True, bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 330-odd tokens that round-trips any text; ChatML-like template. bos: the template begins with
    it, and (as Llama's) the tokenizer prepends it to plain text unless told not to add special tokens."""
    tokenizer = Tokenizer.from_str(_trained_bpe())
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>" if bos else None,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        add_bos_token=bos,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (
        (_CHATML if system_role else _NO_SYSTEM) if bos else _CHATML.replace("{{ bos_token }}", "")
    )
    return fast


@cache
def _trained_bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=336,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return tokenizer.to_str()


def _config(
    family: str, d_vocab: int, tokenizer: PreTrainedTokenizerFast, overrides: dict[str, Any]
) -> PreTrainedConfig:
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shared = {"vocab_size": d_vocab, "initializer_range": 0.2, **ids}
    sizes = {
        **shared,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    window = {"sliding_window": 6}
    if family == "gpt2":
        return GPT2Config(
            **{**shared, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128, **overrides}
        )
    if family == "gemma3_multimodal":
        text = {
            **sizes,
            "head_dim": 12,
            **window,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 10,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            **overrides,
        }
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    make, own = {
        "llama": (LlamaConfig, {"rope_theta": 5e4, "rope_scaling": llama3, "tie_word_embeddings": False}),
        "qwen2": (
            Qwen2Config,
            {"rope_theta": 1e5, "tie_word_embeddings": False, "use_sliding_window": False},
        ),
        "qwen3": (Qwen3Config, {"rope_theta": 1e5, "head_dim": 12, "tie_word_embeddings": True}),
        "gemma2": (
            Gemma2Config,
            {
                **window,
                "head_dim": 12,
                "query_pre_attn_scalar": 10,
                "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            },
        ),
        "gemma3": (
            Gemma3TextConfig,
            {**window, "head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window_pattern": 2},
        ),
        "mistral": (MistralConfig, {**window, "head_dim": 12, "tie_word_embeddings": False}),
    }[family]
    return make(**{**sizes, **own, **overrides})


def _random_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """The model of a config; norms and biases, ones and zeros at first, are shaken so that losing one shows."""
    multimodal = isinstance(config, Gemma3Config)
    mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if multimodal else MODEL_FOR_CAUSAL_LM_MAPPING
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = mapping[type(config)](config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def _as_on_the_hub(family: str, path: Path) -> None:
    """Older spelling of the rope fields, and only the fields that the published multimodal configs have."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    part = config["text_config"] if family == "gemma3_multimodal" else config
    rope = part.pop("rope_parameters", None)
    if rope and "full_attention" in rope:
        part["rope_theta"] = rope["full_attention"].pop("rope_theta")
        part["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        part.setdefault("rope_theta", rope.pop("rope_theta", None))
        if rope.get("rope_type", "default") != "default":
            part["rope_scaling"] = rope
    if family == "gemma3_multimodal":
        for field in ("layer_types", "rope_theta", "rope_local_base_freq", "_sliding_window_pattern"):
            part.pop(field, None)
    config["torch_dtype"] = config.pop("dtype", "float32")
    file.write_text(json.dumps(config, indent=1))
