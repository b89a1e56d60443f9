"""Quantities that a prompt token's effect is measured on: a direction, an SAE latent, the answer's log-odds.

A target is a named objective in its raw unit. All latents of one SAE are encoded in one call, so that two
hundred latents cost little more than one.
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
#: Name of the target that is the answer's log-odds.
ANSWER = "answer log-odds"


@dataclass(frozen=True)
class AttributionTarget:
    """A named quantity whose change is attributed, read at the last token before the answer.

    Attributes:
        name: Name in tables and files; each name occurs once among the targets.
        objective: Differentiable objective that computes the quantity; the target has the objective's unit.
        label: A user's description of a latent, such as "says no"; empty if there is none.
    """

    name: str
    objective: Objective
    label: str = ""

    @property
    def shown_name(self) -> str:
        """Name of the target, followed by its label if it has one: `latent 80: says no`."""
        return f"{self.name}: {self.label}" if self.label else self.name

    @property
    def latent(self) -> int | None:
        """Index of the SAE latent if the target is the activation of exactly one latent, otherwise None."""
        latents = self.objective.latents if isinstance(self.objective, LatentActivationObjective) else ()
        return latents[0] if len(latents) == 1 else None

    @property
    def kind(self) -> Kind:
        """Kind of the target: "answer", "direction", "latent" or "objective" (any other objective)."""
        if isinstance(self.objective, AnswerLogOddsObjective):
            return "answer"
        if isinstance(self.objective, ProjectionObjective):
            return "direction"
        return "latent" if isinstance(self.objective, LatentActivationObjective) else "objective"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites of the model at which the target's activations are read."""
        return self.objective.sites


@dataclass(frozen=True)
class AttributionTargets:
    """Several targets that are computed from the activations of one forward pass.

    Attributes:
        items: The targets, in the order of the last axis of all scores.
    """

    items: tuple[AttributionTarget, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites of all targets, without duplicates."""
        return tuple(dict.fromkeys(site for target in self.items for site in target.sites))

    @property
    def needs_final(self) -> bool:
        """Whether a target needs the output of the last block, as the answer's log-odds do."""
        return any(target.objective.needs_final for target in self.items)

    def depth(self, n_layers: int) -> int:
        """Return how many blocks a forward pass must run so that every target can be read."""
        return max(target.objective.depth(n_layers) for target in self.items)

    def score(self, readout: Readout) -> Float[Tensor, "batch target"]:
        """Compute every target from the activations in `readout`.

        Args:
            readout: Activations of a batch at the decision tokens (the last token before the answer).

        Returns:
            Float32 scores, each in its target's unit. They are differentiable. A latent that is not active
            has the score 0 and the gradient 0.
        """
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
        """Return the indices of the targets that are one unscaled latent each, by the id of their SAE."""
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
    """Convert a user's description of what to measure into targets.

    The answer's log-odds are inserted as the first target if they are missing.

    Args:
        given: `AttributionTargets`; a mapping of names to directions or objectives; or a list or a single
            value of `AttributionTarget`, direction, ranked latent or objective.

    Returns:
        The targets in the given order.

    Raises:
        UserError: An item is of another type, or a name occurs twice.
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
