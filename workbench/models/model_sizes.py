"""Sizes of a model without its weights: built in for the paper's three models, from the config for others.

Sources: the config.json of meta-llama/Llama-3.1-8B-Instruct, Qwen/Qwen2.5-7B-Instruct and
google/gemma-3-4b-it (its text part).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from workbench.models.model_directory import load_tokenizer, open_model_directory, quiet_transformers
from workbench.models.model_sources import find_source
from workbench.models.runner import ModelShape


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model, found without loading its weights.

    Attributes:
        shape: Layers, heads and widths, as in a `Runner`.
        parameters: Number of weights, tied ones counted once.
        source: Where the sizes come from, in words.
        architecture: Hugging Face's class; empty if the memory estimate does not depend on it.
        file: Bytes of the weights files; 0 if they are not on this machine.
    """

    shape: ModelShape
    parameters: int
    source: str
    architecture: str = ""
    file: int = 0


def _gated(shape: ModelShape, d_mlp: int, small: int, architecture: str = "") -> ModelSizes:
    """Sizes of a gated-MLP transformer of a published config.

    Args:
        shape: Sizes; `block_parameters` is filled in.
        d_mlp: Width of the MLP.
        small: Number of norm weights and biases of one block.
        architecture: Hugging Face's class; empty if it does not matter.
    """
    block = (
        2 * shape.d_model * shape.d_head * (shape.n_heads + shape.n_kv_heads)
        + 3 * shape.d_model * d_mlp
        + small
    )
    embeddings = shape.d_vocab * shape.d_model * (1 if shape.tied else 2)
    parameters = shape.n_layers * block + shape.d_model + embeddings
    return ModelSizes(
        replace(shape, block_parameters=block), parameters, "the published config", architecture
    )


_LLAMA = ModelShape(
    n_layers=32,
    d_model=4096,
    n_heads=32,
    n_kv_heads=8,
    d_head=128,
    d_vocab=128_256,
    n_ctx=131_072,
    block_parameters=0,
    tied=False,
)
_QWEN = ModelShape(
    n_layers=28,
    d_model=3584,
    n_heads=28,
    n_kv_heads=4,
    d_head=128,
    d_vocab=152_064,
    n_ctx=32_768,
    block_parameters=0,
    tied=False,
)
_GEMMA = ModelShape(
    n_layers=34,
    d_model=2560,
    n_heads=8,
    n_kv_heads=4,
    d_head=256,
    d_vocab=262_208,
    n_ctx=131_072,
    block_parameters=0,
    tied=True,
)

KNOWN = {
    "llama-3.1-8b-instruct": _gated(_LLAMA, 14_336, 2 * 4096),
    "qwen2.5-7b-instruct": _gated(_QWEN, 18_944, 2 * 3584 + 3584 + 2 * 512),
    "gemma-3-4b-it": _gated(_GEMMA, 10_240, 4 * 2560 + 2 * 256, "Gemma3ForCausalLM"),
}


def model_sizes_of(name: str, revision: str | None = None) -> ModelSizes:
    """Return the sizes of a model by name or directory; no weight is read.

    Args:
        name: A model name or directory, as in `load_model`.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        UserError: The model has no built-in sizes and is not on this machine.
    """
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
    file = sum(shard.stat().st_size for shard in checkpoint.shards)
    return ModelSizes(
        shape, model.num_parameters(), f"{checkpoint.architecture}, its config", checkpoint.architecture, file
    )


def tokenizer_of(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer without the model.

    Args:
        name: A model name or directory, as in `load_model`.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        UserError: The model is not found.
    """
    return load_tokenizer(open_model_directory(find_source(name, revision).directory))
