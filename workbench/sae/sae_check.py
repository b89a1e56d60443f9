"""What was found when an SAE read the model's own text (`reconstruction_check` finds it)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

#: Column of tables: the unit of a latent's density.
DENSITY_HEADER = "density (fraction of tokens)"


@dataclass(frozen=True)
class SaeCheck:
    """How well an SAE fits a model.

    explained_variance: at the SAE's own layer, 1 is perfect, below 0 worse than the mean. by_layer: at the
    neighbours too, on at most COMPARED tokens. l0: latents active at a token, mean. density: of each latent,
    the fraction of tokens on which it is active. tokens: how many were read (the first of each text is not);
    every density, L0 and explained variance is over these.
    """

    explained_variance: float
    by_layer: dict[int, float]
    l0: float
    density: Float[Tensor, " d_sae"] = field(repr=False, compare=False)
    tokens: int
    warnings: tuple[str, ...] = ()

    @property
    def silent(self) -> int:
        """Latents that never fired on this text."""
        return int((self.density == 0).sum())

    @property
    def summary(self) -> str:
        """One line: explained variance, L0 and the text that they are of."""
        return f"explained variance {self.explained_variance:.2f} and L0 {self.l0:.1f} on {self.tokens:,} tokens of the model's own text"
