"""Result of the check whether an SAE fits a model (`reconstruction_check` runs it)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

#: Column header for the density of latents, with its unit.
DENSITY_HEADER = "density (fraction of tokens)"


@dataclass(frozen=True)
class SaeCheck:
    """How well an SAE reconstructs a model's activations on some text.

    All figures leave out the first token of each text.

    Attributes:
        explained_variance: At the SAE's layer; 1 is perfect, below 0 is worse than the mean activation.
        by_layer: Explained variance at the SAE's layer and the layers before and after it, on a part of the
            tokens.
        l0: Mean number of active latents per token.
        density: For each latent, the fraction of tokens on which it is active.
        tokens: Number of tokens read.
        warnings: What suggests that the SAE does not fit the model, in words.
    """

    explained_variance: float
    by_layer: dict[int, float]
    l0: float
    density: Float[Tensor, " d_sae"] = field(repr=False, compare=False)
    tokens: int
    warnings: tuple[str, ...] = ()

    @property
    def silent(self) -> int:
        """Number of latents that were never active on this text."""
        return int((self.density == 0).sum())

    @property
    def summary(self) -> str:
        """Explained variance, L0 and number of tokens in one line of text."""
        return f"explained variance {self.explained_variance:.2f} and L0 {self.l0:.1f} on {self.tokens:,} tokens of the model's own text"
