"""Latents of a sparse autoencoder: which of them carry a persona, and what each of them is."""

from workbench.latents.latent_cards import LatentCard, LatentCards, LatentExample, describe_latents
from workbench.latents.latent_ranking import LatentRanking, RankedLatent, effect_sizes, group_halves, persona_probe, promoted, rank_latents

__all__ = [
    "LatentCard",
    "LatentCards",
    "LatentExample",
    "LatentRanking",
    "RankedLatent",
    "describe_latents",
    "effect_sizes",
    "group_halves",
    "persona_probe",
    "promoted",
    "rank_latents",
]  # fmt: skip
