"""Objectives of a direction: its projection (RESGA), and one that is held at a value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Site
from workbench.objectives.objective import UNSCALED, Objective, ObjectiveScale, ScaledObjective
from workbench.objectives.readout import Readout

Kind = Literal["z", "raw", "cosine"]


@dataclass(frozen=True)
class ProjectionObjective(ScaledObjective):
    """Residual at a site, projected on a unit vector. kind "raw": in units of the residual, no guard; "cosine": divided by the
    residual's norm; "z": standard deviations over neutral prompts after `calibrate`, with the norm guard."""

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
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        return super().calibrate(model, contexts, n, length, seed) if self.kind == "z" else self


def projection(direction: Any, kind: Kind = "z") -> ProjectionObjective:
    """RESGA's objective: the decision token's residual along a direction; plus = more persona.

    Args:
        direction: A `Direction` (anything with `vector` and `site`).
        kind: "z": in standard deviations over neutral prompts, after `.calibrate(model, contexts)`; "raw": in units of the
            residual stream; "cosine": -1 to 1. See `workbench.objectives.Kind`.

    Returns:
        An objective. Source: arXiv 2601.02896, with the corrections that docs/paper_study.md names.

    Example:
        >>> goal = -wb.projection(direction).calibrate(model, contexts)
    """
    vector = torch.as_tensor(direction.vector, dtype=torch.float32)
    return ProjectionObjective(vector / vector.norm(), replace(direction.site, position="decision"), kind)


@dataclass(frozen=True)
class HoldObjective(Objective):
    """Minus the squared distance of another objective's score from a value: 0 is best.

    Attributes:
        inner: The objective whose score is held.
        value: Where it is held, in the unit of `inner`.

    Example:
        >>> wb.HoldObjective(wb.answer_log_odds(), value=0.0).value
        0.0
    """

    inner: Objective
    value: float

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return self.inner.sites

    @property
    @override
    def needs_final(self) -> bool:
        return self.inner.needs_final

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        if readout.whole is not None and readout.whole.table.n_branches > 1 and self.inner.needs_final:
            raise UserError("an answer of several tokens cannot be held at a value: hold a direction or latents, or use one-token answers")
        return -((self.inner.score(readout) - self.value) ** 2)

    @override
    def calibrate(self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0) -> Objective:
        return replace(self, inner=self.inner.calibrate(model, contexts, n, length, seed))


def hold_direction(direction: Any) -> HoldObjective:
    """Keep another direction's z-scored reading at its mean over neutral prompts: 0 is best, -1 is one SD away.

    Args:
        direction: A `Direction` (anything with `vector` and `site`).

    Returns:
        An objective; `.calibrate(model, contexts)` measures the mean and SD.

    Example:
        >>> goal = -wb.answer_log_odds() + wb.hold_direction(direction)
    """
    return HoldObjective(projection(direction), 0.0)
