"""RESGA's objective: the projection of the residual stream on a direction."""

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
    """Objective: projection of the residual stream at a site on a unit vector.

    Attributes:
        vector: The unit vector; plus = more of the persona.
        site: Site in the model that is read.
        kind: "z": the projection in standard deviations over neutral prompts (texts without a topic), which
            `calibrate` measures; very long residuals are shortened first. "raw": in units of the residual
            stream. "cosine": divided by the residual's norm.
        scale: Mean, standard deviation and largest residual norm that `calibrate` measured.
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
        """Return the projection before scaling: in units of the residual stream, or a cosine from -1 to 1."""
        resid = readout.resid[self.site].float()
        unit = self.vector.to(resid.device, torch.float32)
        if self.kind == "cosine":
            return torch.nn.functional.normalize(resid, dim=-1) @ unit
        return self.guarded(resid) @ unit

    @override
    def calibrate(
        self,
        model: Any,
        contexts: Contexts,
        n: int = 24,
        length: int = 8,
        seed: int = 0,
        batch_tokens: int = 8192,
    ) -> Objective:
        if self.kind != "z":
            return self
        return super().calibrate(model, contexts, n, length, seed, batch_tokens)


def projection(direction: Any, kind: Kind = "z") -> ProjectionObjective:
    """Return RESGA's objective: the projection of the decision token's residual on a direction.

    The decision token is the last token before the answer; plus = more of the persona.

    Args:
        direction: A `Direction`, or any object with `vector` and `site`.
        kind: "z": in standard deviations over neutral prompts (texts without a topic), after
            `.calibrate(model, contexts)`; "raw": in units of the residual stream; "cosine": -1 to 1.

    Returns:
        An objective. Source: arXiv 2601.02896, with the corrections that docs/paper_study.md names.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
    """
    vector = torch.as_tensor(direction.vector, dtype=torch.float32)
    return ProjectionObjective(vector / vector.norm(), replace(direction.site, position="decision"), kind)
