"""A hand-made model whose attributions can be worked out on paper, and the small random model with its targets.

The hand-made one attends evenly to everything, copies, and has no norm and no MLP: at the decision token its
residual is e_decision + mean of all embeddings up to there, so a reading is (e_decision + mean_j e_j) . u.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cache

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoTokenizer

from tests.support.tiny_checkpoints import tiny_tokenizer
from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import Contexts, make_contexts
from workbench.models import Site
from workbench.objectives import latent_activation

SITE = Site(1)
TEXT = "Be honest, say no."


@dataclass(frozen=True)
class Axis:
    """What a target needs of a direction."""

    vector: torch.Tensor
    site: Site = SITE
    name: str = "axis"

    @property
    def unit(self) -> torch.Tensor:
        return self.vector / self.vector.norm()


@dataclass(frozen=True)
class Relu:
    """A sparse autoencoder of ReLU latents; the last one never fires."""

    W_enc: torch.Tensor
    W_dec: torch.Tensor
    bias: torch.Tensor
    site: Site = SITE

    def pre_activations(self, x: torch.Tensor, latents) -> torch.Tensor:
        return x @ self.W_enc[:, list(latents)] + self.bias[list(latents)]

    def encode_some(self, x: torch.Tensor, latents) -> torch.Tensor:
        return torch.relu(self.pre_activations(x, latents))


def axis(seed: int = 0, site: Site = SITE) -> Axis:
    return Axis(torch.randn(32, generator=torch.Generator().manual_seed(seed)), site)


@cache
def autoencoder() -> Relu:
    generator = torch.Generator().manual_seed(5)
    bias = torch.zeros(6)
    bias[5] = -1e6
    return Relu(
        torch.randn(32, 6, generator=generator) / 5, torch.randn(6, 32, generator=generator) / 5, bias
    )


def targets() -> dict:
    sae = autoencoder()
    return {"axis": axis(), **{f"latent {i}": latent_activation(sae, [i]) for i in (0, 1, 5)}}


def contexts(model=None, slot: str = "system", n: int = 3, metric: str = "text") -> Contexts:
    """Contexts whose answers are the first tokens of the toy persona's, so that what is read can be worked out on paper."""
    found = make_contexts(model or random_model(), toy_persona(metric).split(seed=0).train, slot=slot, n=n)
    single = (replace(c, answers=(c.answers[0][:1], c.answers[1][:1]), weights=(1.0, 1.0)) for c in found)
    return replace(found, items=tuple(single))


@cache
def averaging_model(d_model: int = 32, n_layers: int = 1) -> HookedTransformer:
    """Layers of even attention that copy what they see; see the module's docstring (for one layer)."""
    tokenizer = tiny_tokenizer()
    cfg = HookedTransformerConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=1,
        d_head=d_model,
        n_ctx=256,
        d_vocab=len(tokenizer),
        attn_only=True,
        normalization_type=None,
        positional_embedding_type="rotary",
        rotary_dim=d_model,
    )
    with tempfile.TemporaryDirectory() as path:
        tokenizer.save_pretrained(path)
        model = HookedTransformer(cfg, tokenizer=AutoTokenizer.from_pretrained(path))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.W_E.copy_(torch.randn(model.W_E.shape, generator=generator))
        model.W_U.copy_(torch.randn(model.W_U.shape, generator=generator))
        for block in model.blocks:
            block.attn.W_V.copy_(torch.eye(d_model)[None])
            block.attn.W_O.copy_(torch.eye(d_model)[None])
    return model.eval().requires_grad_(False)
