"""Latents of a sparse autoencoder: which of them carry a persona, and what each of them is."""

from workbench.latents.cards import Card, Cards, Example, describe_latents
from workbench.latents.rank import Latent, Latents, effect_sizes, group_halves, persona_probe, promoted, rank_latents

__all__ = [
    "Card", "Cards", "Example", "Latent", "Latents", "describe_latents", "effect_sizes", "group_halves", "persona_probe", "promoted", "rank_latents",
]  # fmt: skip
