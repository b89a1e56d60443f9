"""Sizes of a model without its weights: built in for the paper's three, from the config alone for any other.

Sources: the config.json of meta-llama/Llama-3.1-8B-Instruct, Qwen/Qwen2.5-7B-Instruct and google/gemma-3-4b-it (its text part).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from workbench.models.model_directory import load_tokenizer, open_model_directory, quiet_transformers
from workbench.models.model_sources import find_source
from workbench.models.runner import ModelShape


@dataclass(frozen=True)
class ModelSizes:
    """shape: as a runner's. parameters: all weights, tied ones once. source: where the sizes come from. architecture: Hugging Face's
    name of its class; empty where it does not matter."""

    shape: ModelShape
    parameters: int
    source: str
    architecture: str = ""


def _gated(layers: int, d: int, heads: int, kv: int, d_head: int, mlp: int, vocab: int, n_ctx: int, tied: bool, small: int) -> ModelSizes:
    """A gated-MLP transformer. small: norms and biases of one block."""
    block = 2 * d * d_head * (heads + kv) + 3 * d * mlp + small
    parameters = layers * block + d + vocab * d * (1 if tied else 2)
    shape = ModelShape(layers, d, heads, kv, d_head, vocab, n_ctx, block, tied)
    return ModelSizes(shape, parameters, "the published config", "Gemma3ForCausalLM" if tied else "")


KNOWN = {
    "llama-3.1-8b-instruct": _gated(32, 4096, 32, 8, 128, 14_336, 128_256, 131_072, False, 2 * 4096),
    "qwen2.5-7b-instruct": _gated(28, 3584, 28, 4, 128, 18_944, 152_064, 32_768, False, 2 * 3584 + 3584 + 2 * 512),
    "gemma-3-4b-it": _gated(34, 2560, 8, 4, 256, 10_240, 262_208, 131_072, True, 4 * 2560 + 2 * 256),
}


def model_sizes_of(name: str, revision: str | None = None) -> ModelSizes:
    """Sizes of a model by name or directory; no weight is read. UserError where the model is not known and not here."""
    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    checkpoint = open_model_directory(find_source(name, revision).directory)
    with torch.device("meta"), quiet_transformers():
        model = AutoModelForCausalLM.from_config(checkpoint.config)
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    config = checkpoint.config
    heads = config.num_attention_heads
    shape = ModelShape(
        n_layers=len(blocks),
        d_model=config.hidden_size,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        d_vocab=config.vocab_size,
        n_ctx=config.max_position_embeddings,
        block_parameters=sum(p.numel() for p in blocks.parameters()) // len(blocks),
        tied=bool(config.tie_word_embeddings),
    )
    return ModelSizes(shape, model.num_parameters(), f"{checkpoint.architecture}, its config", checkpoint.architecture)


def tokenizer_of(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A model's tokenizer without the model. UserError where it is not here."""
    return load_tokenizer(open_model_directory(find_source(name, revision).directory))
