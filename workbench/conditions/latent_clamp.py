"""Latent clamping: hold SAE latents at fixed activations while the model answers (Templeton et al. 2024).

To suppress a persona, its latents are held at 0. To induce it, a grid of levels is tried, in units of each
latent's largest activation on the selection questions; the best level is chosen on *selection* data under the
same guard as for steering.
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

#: Levels to try, in units of a latent's largest activation on the selection questions (0 switches it off).
GRID = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


class RankedLatents(Protocol):
    """Interface of SAE latents ranked by how well they predict a persona, best first."""

    @property
    def ids(self) -> Sequence[int]:
        """Indices of the latents in the SAE."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """Weight of each latent of `ids`; above 0 if the latent is more active with the persona."""
        ...


@dataclass(frozen=True, eq=False)
class LatentClamp(Condition):
    """A condition that holds SAE latents at fixed activations.

    Attributes:
        sae: The SAE of the latents.
        latents: Indices of the latents in the SAE; one number for a single latent.
        signs: +1 for a latent that is more active with the persona, -1 for one that is less active. `tune`
            raises the first kind and sets the second to 0 when it induces, and the reverse when it
            suppresses.
        values: Activations to hold, one per latent.
        positions: Token positions of the clamp: "all", "prompt", "decision" (the last token before the
            answer) or "answer" (from the decision token on).
        name: Name in tables.
        kind: Kind of condition, "latent_clamp".
        method: How the values were chosen, in words.
        selection_rate: Fraction of the selection questions that the model answers as the persona under the
            clamp.
        cost: Cost of the tuning.

    Example:
        >>> wb.LatentClamp.of(sae, latents, k=1).latents == (latents.ids[0],)
        True
    """

    sae: HasLatents
    latents: tuple[int, ...]  # a single number is also accepted
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
        """Make an untuned clamp of the first `k` ranked latents, each with the sign of its weight.

        Args:
            sae: The SAE of the latents.
            ranked: Latents with signed weights, the most predictive first.
            k: Number of latents to clamp.

        Returns:
            A clamp with all values 0; `tune` chooses better ones.
        """
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
        """Return the clamp as a context manager, active for every run of the model inside the block."""
        return clamp(model, self.sae, self.latents, self.values, self.positions)

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return the answers to the questions without a prompt while the SAE latents are held."""
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
        """Return this clamp at the level that has the largest effect on the selection questions.

        A level is multiplied by a latent's largest activation to give the value to hold. Latents that would
        act against the requested sign are held at 0 at every level.

        Args:
            model: A loaded model or its runner.
            selection: Questions by which the level is chosen.
            sign: Whether to "suppress" or "induce" the persona.
            grid: Levels to try, in units of each latent's largest activation on the selection questions.
            guard: Limits on side effects; None for the default `CapabilityGuard`.
            slot: The place in the chat where a prompt would go; used to make contexts of a split.

        Returns:
            The clamp with the chosen values, its cost, and its rate (fraction of questions answered as the
            persona).

        Raises:
            UserError: Every level exceeds a limit on side effects.
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
    """Return the largest activation of each latent at the decision tokens of the questions without a prompt.

    The decision token is the last token before the answer. A latent that is never active gets the value 1.
    """
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
