"""RESGA's objective: the residual stream's projection on a direction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.contexts import Contexts
from workbench.models import Site
from workbench.objectives.objective import Objective
from workbench.objectives.objective_scale import UNSCALED, ObjectiveScale, ScaledObjective
from workbench.objectives.readout import Readout

Kind = Literal["z", "raw", "cosine"]


@dataclass(frozen=True, repr=False)
class ProjectionObjective(ScaledObjective):
    """Residual at a site, projected on a unit vector.

    kind "raw": in units of the residual, no guard; "cosine": divided by the residual's norm; "z": standard
    deviations over neutral prompts after `calibrate`, with the norm guard.
    """

    vector: Float[Tensor, " d_model"] = field(repr=False)
    site: Site
    kind: Kind = "z"
    scale: ObjectiveScale = UNSCALED

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Along the unit vector, in units of the residual stream; as a cosine, -1 to 1, for that kind."""
        resid = readout.resid[self.site].float()
        unit = self.vector.to(resid.device, torch.float32)
        if self.kind == "cosine":
            return torch.nn.functional.normalize(resid, dim=-1) @ unit
        return self.guarded(resid) @ unit

    @override
    def calibrate(
        self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0
    ) -> Objective:
        return super().calibrate(model, contexts, n, length, seed) if self.kind == "z" else self


def projection(direction: Any, kind: Kind = "z") -> ProjectionObjective:
    """RESGA's objective: the decision token's residual along a direction; plus = more persona.

    Args:
        direction: A `Direction` (anything with `vector` and `site`).
        kind: "z": in standard deviations over neutral prompts, after `.calibrate(model, contexts)`; "raw": in
            units of the residual stream; "cosine": -1 to 1. See `workbench.objectives.Kind`.

    Returns:
        An objective. Source: arXiv 2601.02896, with the corrections that docs/paper_study.md names.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
    """
    vector = torch.as_tensor(direction.vector, dtype=torch.float32)
    return ProjectionObjective(vector / vector.norm(), replace(direction.site, position="decision"), kind)
