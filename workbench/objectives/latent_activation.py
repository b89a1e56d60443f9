"""SAEGA's objective: a weighted sum of SAE latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.errors import UserError
from workbench.models import Site
from workbench.objectives.objective_scale import UNSCALED, ObjectiveScale, ScaledObjective
from workbench.objectives.readout import Readout


class LatentReader(Protocol):
    """The part of an SAE that an objective uses."""

    @property
    def site(self) -> Site:
        """Where it reads."""
        ...

    def encode_some(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """Activations of a few latents."""
        ...

    def pre_activations(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """What goes into their non-linearity."""
        ...


@dataclass(frozen=True, repr=False)
class LatentActivationObjective(ScaledObjective):
    """Weighted sum of latents' activations.

    A latent that is off has no gradient of its own, so the gradient goes through the pre-activation while the
    score is the activation (straight-through).
    """

    sae: LatentReader = field(repr=False)
    latents: tuple[int, ...]
    weights: tuple[float, ...]
    scale: ObjectiveScale = UNSCALED

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return (replace(self.sae.site, position="decision"),)

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Weighted sum of activations, in the latents' unit."""
        resid = self.guarded(readout.resid[self.sites[0]].float())
        activation = self.sae.encode_some(resid, self.latents)
        if resid.requires_grad:
            before = self.sae.pre_activations(resid, self.latents)
            activation = activation.detach() + before - before.detach()
        return activation.float() @ torch.tensor(self.weights, device=resid.device)


def latent_activation(
    sae: LatentReader, latents: Sequence[int], weights: Sequence[float] | None = None
) -> LatentActivationObjective:
    """SAEGA's objective: signed weighted SAE latents at the decision token; plus = more persona.

    Args:
        sae: The SAE that reads the latents (`load_sae`).
        latents: Numbers of the latents.
        weights: One number per latent; 1 each when None.

    Returns:
        An objective, in the unit of the latents' activations times the weights.

    Example:
        >>> goal = wb.latent_activation(sae, latents.ids, latents.weights)
        >>> goal == latents.objective(sae)
        True
    """
    weights = [1.0] * len(latents) if weights is None else list(weights)
    if len(weights) != len(latents) or not latents:
        raise UserError(
            f"expected one weight for each latent, found {len(latents)} latents and {len(weights)} weights"
        )
    return LatentActivationObjective(sae, tuple(int(i) for i in latents), tuple(float(w) for w in weights))
