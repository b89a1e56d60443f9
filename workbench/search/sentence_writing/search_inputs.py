"""What a search over sentences takes from its contexts and its objective: the questions of a step, and where to push."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Contexts
from workbench.models import Site
from workbench.objectives import LatentActivationObjective, Objective, ProjectionObjective, terms_of
from workbench.personas.persona import counterbalanced


def both_sides(contexts: Contexts, n: int) -> Contexts:
    """`n` contexts, those of each matching answer in turn, so that no answer is preferred."""
    whole = counterbalanced([context.item for context in contexts])
    sides: dict[tuple[int, ...], list[Any]] = {}
    for context in contexts:
        sides.setdefault(context.answers[0] if whole else context.answers[0][:1], []).append(context)
    turns = max(map(len, sides.values()))
    chosen = [side[i] for i in range(turns) for side in sides.values() if i < len(side)]
    return replace(contexts, items=tuple(chosen[:n]))


def direction_of(objective: Objective) -> tuple[Site, Float[Tensor, " d_model"]] | None:
    """Where and whither the objective's first term along a direction or latents would push the residual stream."""
    for weight, term in terms_of(objective):
        if isinstance(term, ProjectionObjective):
            return replace(term.site, position="decision"), weight * term.vector.float()
        if isinstance(term, LatentActivationObjective):
            rows = term.sae.W_dec[list(term.latents)].float()  # type: ignore[attr-defined]
            return term.sites[0], weight * (torch.tensor(term.weights) @ rows.cpu())
    return None
