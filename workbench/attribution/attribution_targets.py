"""What a prompt token's effect is measured on: a direction's reading, a latent's activation, the answer's log-odds.

A target is a named objective in its raw unit. Many latents of one SAE are encoded in one call, so that two
hundred of them cost little more than one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError
from workbench.latents import RankedLatent
from workbench.models import Site
from workbench.objectives import (
    AnswerLogOddsObjective,
    LatentActivationObjective,
    Objective,
    ObjectiveScale,
    ProjectionObjective,
    Readout,
    answer_log_odds,
    projection,
)

Kind = Literal["answer", "direction", "latent", "objective"]
#: The name that the answer's log-odds have as a target.
ANSWER = "answer log-odds"


@dataclass(frozen=True)
class AttributionTarget:
    """One quantity at the decision token.

    objective: how it is read, differentiable; its unit is the target's unit. label: what a user calls a
    latent.
    """

    name: str
    objective: Objective
    label: str = ""

    @property
    def shown_name(self) -> str:
        """The name, and what a user calls it: `latent 80: says no`."""
        return f"{self.name}: {self.label}" if self.label else self.name

    @property
    def latent(self) -> int | None:
        """The latent's number, where the quantity is the activation of a single one."""
        latents = self.objective.latents if isinstance(self.objective, LatentActivationObjective) else ()
        return latents[0] if len(latents) == 1 else None

    @property
    def kind(self) -> Kind:
        """What sort of quantity it is, for grouping and for the report."""
        if isinstance(self.objective, AnswerLogOddsObjective):
            return "answer"
        if isinstance(self.objective, ProjectionObjective):
            return "direction"
        return "latent" if isinstance(self.objective, LatentActivationObjective) else "objective"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the model is read for it."""
        return self.objective.sites


@dataclass(frozen=True)
class AttributionTargets:
    """Targets that are scored together from one readout."""

    items: tuple[AttributionTarget, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, each once."""
        return tuple(dict.fromkeys(site for target in self.items for site in target.sites))

    @property
    def needs_final(self) -> bool:
        """True if one of them needs the end of the model."""
        return any(target.objective.needs_final for target in self.items)

    def depth(self, n_layers: int) -> int:
        """How many blocks must be run."""
        return max(target.objective.depth(n_layers) for target in self.items)

    def score(self, readout: Readout) -> Float[Tensor, "batch target"]:
        """Float32 scores, differentiable: a latent that is off has gradient 0, as its activation does."""
        columns: dict[int, Tensor] = {}
        for members in self._plain_latents().values():
            latents = [cast(LatentActivationObjective, self.items[i].objective) for i in members]
            activations = latents[0].sae.encode_some(
                readout.resid[latents[0].sites[0]].float(), [o.latents[0] for o in latents]
            )
            columns |= {i: activations[:, k] * latents[k].weights[0] for k, i in enumerate(members)}
        for i, target in enumerate(self.items):
            if i not in columns:
                columns[i] = target.objective.score(readout)
        return torch.stack([columns[i].float() for i in range(len(self.items))], dim=1)

    def _plain_latents(self) -> dict[int, list[int]]:
        """Indices of single, unscaled latents by their SAE."""
        found: dict[int, list[int]] = {}
        for i, target in enumerate(self.items):
            objective = target.objective
            if (
                isinstance(objective, LatentActivationObjective)
                and len(objective.latents) == 1
                and objective.scale == ObjectiveScale()
            ):
                found.setdefault(id(objective.sae), []).append(i)
        return found


def as_targets(given: Any) -> AttributionTargets:
    """Targets from what a user has.

    A mapping of names to objectives or directions, or a sequence of `AttributionTarget`s, directions, ranked
    latents and objectives. The answer's log-odds are put first where they are missing. UserError for anything
    else, and for a name that occurs twice.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [(None, item) for item in _sequence(given)]
    items = [_target(name, item, number) for number, (name, item) in enumerate(pairs)]
    if not any(target.kind == "answer" for target in items):
        items.insert(0, AttributionTarget(ANSWER, answer_log_odds()))
    names = [target.name for target in items]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the target {twice!r} occurs twice: expected each name once")
    return AttributionTargets(tuple(items))


def _sequence(given: Any) -> Sequence[Any]:
    if isinstance(given, AttributionTargets):
        return given.items
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _target(name: str | None, item: Any, number: int) -> AttributionTarget:
    if isinstance(item, AttributionTarget):
        return item
    if isinstance(item, AnswerLogOddsObjective):
        return AttributionTarget(name or ANSWER, item)
    if isinstance(item, RankedLatent):
        return AttributionTarget(name or item.name, item.objective(), item.label if item.label_source else "")
    if isinstance(item, LatentActivationObjective) and len(item.latents) == 1:
        return AttributionTarget(name or f"latent {item.latents[0]}", item)
    if isinstance(item, Objective):
        return AttributionTarget(name or f"objective {number}", item)
    if hasattr(item, "vector") and hasattr(item, "site"):
        return AttributionTarget(
            name or getattr(item, "name", f"direction {number}"), projection(item, "raw")
        )
    raise UserError(
        f"target {number}: expected a direction, a latent or an objective, found {type(item).__name__}"
    )
