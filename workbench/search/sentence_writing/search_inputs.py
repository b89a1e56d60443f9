"""Inputs of a search over sentences: the questions of a step, and the direction of the objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Contexts
from workbench.models import Site
from workbench.objectives import LatentActivationObjective, Objective, ProjectionObjective, terms_of
from workbench.personas.balanced_draws import balanced_sets, balanced_within_groups_only, share_answers


def both_sides(contexts: Contexts, n: int) -> Contexts:
    """Select `n` questions whose matching answers take turns, so that no answer is preferred.

    The matching answer is the one that shows the persona, such as "(A)" or "(B)". If question groups have answers
    of their own, questions of a group whose answers balance each other are selected together.

    Args:
        contexts: The questions, rendered as chats.
        n: Number of questions.
    """
    items = [context.item for context in contexts]
    if balanced_within_groups_only(items):
        return replace(contexts, items=tuple(contexts.items[i] for i in balanced_sets(items)[:n]))
    whole = share_answers(items)
    sides: dict[tuple[int, ...], list[Any]] = {}
    for context in contexts:
        sides.setdefault(context.answers[0] if whole else context.answers[0][:1], []).append(context)
    turns = max(map(len, sides.values()))
    chosen = [side[i] for i in range(turns) for side in sides.values() if i < len(side)]
    return replace(contexts, items=tuple(chosen[:n]))


def direction_of(objective: Objective) -> tuple[Site, Float[Tensor, " d_model"]] | None:
    """Return the direction along which an objective would push the residual stream, and its site.

    An objective is a weighted sum of terms. The first term that is a projection or an SAE latent's activation
    gives the direction, times the term's weight. The result is None if there is no such term.

    Args:
        objective: The search's objective.
    """
    for weight, term in terms_of(objective):
        if isinstance(term, ProjectionObjective):
            return replace(term.site, position="decision"), weight * term.vector.float()
        if isinstance(term, LatentActivationObjective):
            rows = term.sae.W_dec[list(term.latents)].float()  # type: ignore[attr-defined]
            return term.sites[0], weight * (torch.tensor(term.weights) @ rows.cpu())
    return None
