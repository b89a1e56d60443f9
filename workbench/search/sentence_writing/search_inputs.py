"""Inputs of a search over sentences: the questions of a step, and the direction of the objective.

The questions of a step are few, so they must be ones on which prompts differ. A small model does not know every
fact: on "the whale is a kind of fish, I suppose" no prompt moves its answer, and a search on such questions ends
anywhere. `telling_questions` therefore chooses those whose scores go with the mean over more questions.
"""

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


def telling_questions(contexts: Contexts, scores: Float[Tensor, "prompt context"], n: int) -> list[int]:
    """Choose the questions whose mean score ranks prompts as the mean over all questions does.

    Questions are added one at a time: of the questions whose matching answer was chosen least so far, the one
    with which the mean of the chosen ones correlates best with the mean over all. Questions that balance each
    other within a group are added together. The mean over all weights the matching answers equally.

    Args:
        contexts: The questions, rendered as chats.
        scores: Objective of some prompts on each question, any scale.
        n: Number of questions.

    Returns:
        Positions of the chosen questions in `contexts`, at most `n` of them, in their order.
    """
    units, sides = _units(contexts)
    target = torch.stack(
        [scores[:, [i for unit in side for i in units[unit]]].mean(1) for side in sides]
    ).mean(0)
    chosen: list[int] = []
    left, turns = [list(side) for side in sides], [0] * len(sides)
    while any(left) and len(chosen) < n:
        side = min((k for k in range(len(sides)) if left[k]), key=lambda k: turns[k])
        fits = [_correlation(scores[:, chosen + units[unit]].mean(1), target) for unit in left[side]]
        best = max(range(len(fits)), key=fits.__getitem__)
        chosen += units[left[side].pop(best)]
        turns[side] += 1
    return sorted(chosen[:n])


def _units(contexts: Contexts) -> tuple[list[list[int]], list[list[int]]]:
    """Return sets of questions that are chosen together, and the sets of each matching answer."""
    items = [context.item for context in contexts]
    if not balanced_within_groups_only(items):
        sides: dict[tuple[int, ...], list[int]] = {}
        for i, context in enumerate(contexts):
            sides.setdefault(context.answers[0], []).append(i)
        together = list(sides.values()) if len(sides) == 2 else [list(range(len(items)))]
        return [[i] for i in range(len(items))], together
    groups: dict[str, list[int]] = {}
    for i in balanced_sets(items):
        groups.setdefault(items[i].group, []).append(i)
    return list(groups.values()), [list(range(len(groups)))]


def _correlation(one: Float[Tensor, " prompt"], other: Float[Tensor, " prompt"]) -> float:
    """Return the correlation of two score vectors; -1 if one of them does not vary."""
    a, b = one.double() - one.double().mean(), other.double() - other.double().mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else -1.0


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
