"""Latents of an SAE: which of them carry a persona, and what each of them is."""

from workbench.latents.latent_cards import LatentCard, LatentCardOptions, LatentCards, LatentExample, describe_latents
from workbench.latents.latent_ranking import (
    LatentRanking,
    LatentRankingOptions,
    RankedLatent,
    effect_sizes,
    group_halves,
    persona_probe,
    promoted,
    rank_latents,
)

__all__ = [
    "LatentCard",
    "LatentCardOptions",
    "LatentCards",
    "LatentExample",
    "LatentRanking",
    "LatentRankingOptions",
    "RankedLatent",
    "describe_latents",
    "effect_sizes",
    "group_halves",
    "persona_probe",
    "promoted",
    "rank_latents",
]  # fmt: skip
