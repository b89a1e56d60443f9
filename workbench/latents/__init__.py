"""Latents of an SAE: find those that change with a persona, and describe what each latent responds to."""

from workbench.latents.latent_cards import (
    LatentCard,
    LatentCardOptions,
    LatentCards,
    LatentExample,
    describe_latents,
)
from workbench.latents.latent_firing import LatentFiring, latent_firing
from workbench.latents.latent_labels import label_entries, label_latents, latent_labels
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
    "LatentFiring",
    "LatentRanking",
    "LatentRankingOptions",
    "RankedLatent",
    "describe_latents",
    "effect_sizes",
    "group_halves",
    "label_entries",
    "label_latents",
    "latent_firing",
    "latent_labels",
    "persona_probe",
    "promoted",
    "rank_latents",
]
