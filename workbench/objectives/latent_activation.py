"""SAEGA's objective: a weighted sum of the activations of SAE latents."""

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
    """Protocol of an SAE as objectives use it: its site, and the activations of given latents."""

    @property
    def site(self) -> Site:
        """Site in the model whose activations the SAE reads."""
        ...

    def encode_some(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """Compute the activations of the given latents."""
        ...

    def pre_activations(self, resid: Tensor, latents: Sequence[int], /) -> Float[Tensor, "batch latent"]:
        """Compute the inputs of the non-linearity of the given latents."""
        ...


@dataclass(frozen=True, repr=False)
class LatentActivationObjective(ScaledObjective):
    """Objective: weighted sum of the activations of SAE latents at the last token before the answer.

    A latent that is off has no gradient. The score is therefore the activation, but the gradient is that of
    the pre-activation (straight-through).

    Attributes:
        sae: The SAE that computes the latents.
        latents: Numbers of the latents.
        weights: Weight of each latent; plus = more of the persona.
        scale: Mean and standard deviation of the sum over neutral prompts (texts without a topic), by which
            the score is scaled.
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
        """Return the weighted sum of activations, in the SAE's unit, before it is scaled."""
        resid = self.guarded(readout.resid[self.sites[0]].float())
        activation = self.sae.encode_some(resid, self.latents)
        if resid.requires_grad:
            before = self.sae.pre_activations(resid, self.latents)
            activation = activation.detach() + before - before.detach()
        return activation.float() @ torch.tensor(self.weights, device=resid.device)


def latent_activation(
    sae: LatentReader, latents: Sequence[int], weights: Sequence[float] | None = None
) -> LatentActivationObjective:
    """Return SAEGA's objective: the weighted sum of SAE latents at the last token before the answer.

    Args:
        sae: The SAE that computes the latents (`load_sae`).
        latents: Numbers of the latents.
        weights: One weight per latent; plus = more of the persona. None: 1 for each.

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
