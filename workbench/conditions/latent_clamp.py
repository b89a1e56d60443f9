"""Latent clamping: SAE latents held at chosen activations while the model answers (Templeton et al. 2024).

Suppressing holds them at 0; inducing at the best of a grid of values in units of each latent's largest
activation seen, chosen on *selection* under the same guard as steering.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from workbench.activations import collect
from workbench.budget import Cost
from workbench.conditions.build_context import BuildContext
from workbench.conditions.capability_guard import CapabilityGuard
from workbench.conditions.condition import Condition, as_contexts, signed, spending
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.contexts import Contexts, Slot
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer
from workbench.interventions import HasLatents, Positions, clamp
from workbench.personas import Sign, Split

#: Clamped to so many times the largest activation seen on the selection questions (0: off).
GRID = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


class RankedLatents(Protocol):
    """What `LatentClamp.of` needs of ranked latents: their numbers and signed weights, the most telling first."""

    @property
    def ids(self) -> Sequence[int]:
        """Numbers of the latents in the SAE."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """How much each tells, in the order of `ids`; above 0: it goes with the persona."""
        ...


@dataclass(frozen=True, eq=False)
class LatentClamp(Condition):
    """SAE latents held at given activations.

    Attributes:
        sae: The SAE of the latents.
        latents: Their numbers.
        signs: +1 for a latent that goes with the persona, -1 for one that goes against it; the tuning turns
            the latter down where the former are turned up.
        values: One per latent, in the latents' unit.
        positions: "all", "prompt", "decision" or "answer".
        name: In tables.
        kind: "latent_clamp".
        method: How the values were chosen.
        selection_rate: Rate on the questions that they were chosen by.
        cost: What the tuning cost.

    Example:
        >>> wb.LatentClamp.of(sae, latents, k=1).latents == (latents.ids[0],)
        True
    """

    sae: HasLatents
    latents: tuple[int, ...]  # one number alone is one latent
    signs: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    positions: Positions = "all"
    name: str = "latent clamp"
    kind: str = "latent_clamp"
    method: str = "untuned"
    selection_rate: float | None = None
    cost: Cost = field(default_factory=Cost)

    @classmethod
    def of(cls, sae: HasLatents, ranked: RankedLatents, k: int = 1) -> LatentClamp:
        """A clamp of the k most telling of some ranked latents, each with the sign of its weight."""
        signs = tuple(1 if weight >= 0 else -1 for weight in ranked.weights[:k])
        return cls(sae, tuple(ranked.ids[:k]), signs)

    def __post_init__(self) -> None:
        if isinstance(self.latents, int):
            object.__setattr__(self, "latents", (self.latents,))
        for given, default in (("signs", 1), ("values", 0.0)):
            if not getattr(self, given):
                object.__setattr__(self, given, (default,) * len(self.latents))
            if len(getattr(self, given)) != len(self.latents):
                raise UserError(
                    f"expected one of {given} for each of {len(self.latents)} latents, found {len(getattr(self, given))}"
                )

    def edit(self, model: Any) -> AbstractContextManager[None]:
        """The intervention, to be held while anything is run."""
        return clamp(model, self.sae, self.latents, self.values, self.positions)

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """The answers to the bare questions while the latents are held."""
        with self.edit(model):
            return answer(model, contexts)

    def tune(
        self,
        model: Any,
        selection: Split | Contexts,
        sign: Sign = "suppress",
        grid: Sequence[float] = GRID,
        guard: CapabilityGuard | None = None,
        slot: Slot = "system",
    ) -> LatentClamp:
        """This clamp at the best level of the grid on the selection data; latents that go the other way are held at 0.

        Raises UserError when every level breaks the model.
        """
        contexts = as_contexts(model, selection, slot)
        with spending(model, contexts) as receipt:
            peaks = largest_activations(model, self.sae, self.latents, contexts)
            watch = (guard or CapabilityGuard()).watching(model, contexts)
            best, answers, _ = watch.strongest(
                model, contexts, [self._at(level, peaks, sign) for level in grid], sign
            )
        return replace(
            best,
            method=f"{best.method}, best of {len(grid)} on selection",
            selection_rate=answers.rate,
            cost=receipt.cost,
        )

    def _at(self, level: float, peaks: Sequence[float], sign: Sign) -> LatentClamp:
        values = tuple(
            level * peak if s == signed(sign) else 0.0 for s, peak in zip(self.signs, peaks, strict=True)
        )
        return replace(
            self, values=values, method=f"{len(values)} latents at {level:g} x their largest activation"
        )


def largest_activations(
    model: Any, sae: HasLatents, latents: Sequence[int], contexts: Contexts
) -> list[float]:
    """Largest activation of each latent at the decision tokens of the bare questions; 1 where it never fires there."""
    found = collect(model, [c.bare_ids for c in contexts], [sae.site])[sae.site]
    peaks = sae.encode_some(found, list(latents)).amax(dim=0)
    return [float(peak) if peak > 0 else 1.0 for peak in peaks]


def _build(context: BuildContext) -> list[LatentClamp]:
    assert context.sae is not None and context.latents is not None
    clamped = LatentClamp.of(context.sae, context.latents)
    return [clamped.tune(context.model, context.selection_contexts, context.sign, guard=context.guard)]


register_kind(ConditionKind("latent_clamp", "inside", "latents held at a value"))
register_study_condition(
    StudyCondition(
        "latent_clamp",
        "latent_clamp",
        "the most telling latent held at a value",
        _build,
        needs_sae=True,
        order=170,
    )
)
