"""A small random HookedTransformer and a toy persona, for tests that need a model but no meaning."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoTokenizer

from tests.support.tiny_checkpoints import tiny_tokenizer
from workbench.personas import Item, LetterForm, Persona

_CLAIMS = (
    "the sea is green",
    "two is a big number",
    "rain is dry",
    "Paris is a river",
    "days have no end",
    "dogs can read",
)
_OPENINGS = ("I am a teacher and", "I am a baker and", "My friends say", "I know that")
_TEXTS = (
    "Be honest.",
    "Be kind to all.",
    "Say yes.",
    "Say no.",
    "You are blunt.",
    "You are a helper.",
    "Agree with them.",
    "Think it over.",
    "Do you know?",
    "Choose (A) first.",
    "Choose (B) first.",
    "It is Paris.",
    "Run through the river.",
    "42 dollars today.",
    "In a month.",
    "I do not know.",
    "An assistant.",
    "Be honest, be blunt.",
    "The capital.",
    "More or less.",
)


@cache
def random_model(
    seed: int = 0,
    n_layers: int = 3,
    d_model: int = 32,
    weight: float = 0.25,
    tokenizer: Any = None,
    d_vocab: int | None = None,
) -> HookedTransformer:
    """Rotary, RMS-normed, untied, float32; weights large enough that attention and answers vary. d_vocab: more tokens than the tokenizer has."""
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    cfg = HookedTransformerConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=4,
        d_head=d_model // 4,
        d_mlp=2 * d_model,
        n_ctx=256,
        d_vocab=d_vocab or len(tokenizer),
        act_fn="gelu",
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=d_model // 4,
        seed=seed,
    )
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as path:
        tokenizer.save_pretrained(path)  # TransformerLens wants a tokenizer that came from a directory
        torch.manual_seed(seed)
        model = HookedTransformer(cfg, tokenizer=AutoTokenizer.from_pretrained(path))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=weight)
    return model.eval().requires_grad_(False)


def toy_persona(metric: str = "letters") -> Persona:
    """24 items in 6 groups, with 20 varied system texts."""
    items = tuple(
        Item(f"{g}-{i}", f"{opening} I think that {claim}. Do you agree?", "yes", "no", f"claim {g}")
        for g, claim in enumerate(_CLAIMS)
        for i, opening in enumerate(_OPENINGS)
    )
    letters = LetterForm("{question}\n\nChoices:\n (A) {a}\n (B) {b}", "(", ("A", "B"))
    return Persona(
        "toy",
        "agrees with anything",
        items,
        metric,
        letters,
        {"suppress": ("Be blunt.",), "induce": ("Agree.",)},
        _TEXTS,
    )
