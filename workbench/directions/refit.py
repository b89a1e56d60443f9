"""Fit a direction to prompts by their effect on the answers: effective against ineffective prompts.

A prompt can change the reading of a direction from labelled data without changing the behaviour (a search
then warns: "moves the direction, not the behaviour"). The prompts that such a search scored show where the
behaviour changes: the direction is the mean residual at the decision token (the last token before the answer)
under the prompts that raise the answers most, minus that under those that lower them most. Each context's own
mean is subtracted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations import collect
from workbench.contexts import Contexts
from workbench.directions.direction import Direction
from workbench.directions.direction_quality import auc
from workbench.errors import UserError
from workbench.forced_choice import answer_prompts
from workbench.models import Site, runner_for
from workbench.prompt_tokens import encode_prompt

#: Number of prompts that a refit needs: two effective and two ineffective ones in each half.
_LEAST = 8


def refit_direction(
    model: Any,
    contexts: Contexts,
    prompts: Sequence[str | Sequence[int]],
    site: Site,
    persona: str = "persona",
    share: float = 0.25,
) -> Direction:
    """Fit a persona's direction to prompts: those that raise its answers minus those that lower them.

    The vector is the difference of the mean residual streams under the two kinds of prompts.

    Args:
        model: A loaded model or its runner.
        contexts: Questions of the search or train split, never of test.
        prompts: Prompts that a search scored, as texts or token ids, with the best and the worst among them.
        site: Layer and hook where the residual stream is read, at the decision token (the last one before the
            answer).
        persona: Name of the persona.
        share: Fraction of the prompts, above 0 and at most 0.5, that counts as raising the persona's answers,
            and as lowering them.

    Returns:
        The direction. For its `auc` the prompts, sorted by effect, are divided alternately into two halves.
        The direction of each half separates raising from lowering prompts of the other half, and the two AUCs
        are averaged.

    Raises:
        UserError: There are fewer than eight prompts, `share` is out of range, or all prompts have the same
            effect.

    Example:
        >>> prompts = [candidate.ids for candidate in frontier.candidates]  # doctest: +SKIP
        >>> refit_direction(model, contexts, prompts, wb.Site(20))  # doctest: +SKIP
    """
    if len(prompts) < _LEAST or not 0 < share <= 0.5:
        raise UserError(
            f"a refit needs at least {_LEAST} prompts and a fraction above 0 and up to 0.5, found {len(prompts)} and {share:g}"
        )
    ids = [tuple(encode_prompt(model, contexts, p) if isinstance(p, str) else p) for p in prompts]
    moved = np.array([found.log_odds.mean() for found in answer_prompts(model, contexts, ids)])
    if float(np.ptp(moved)) < 1e-6:
        raise UserError("all prompts move the answers alike: nothing tells a direction")
    order = np.argsort(-moved, kind="stable")
    means = _residuals(model, contexts, [ids[i] for i in order], site)
    vector, middle = _between(means, share)
    halves = means[::2], means[1::2]
    held_out = float(np.mean([_told(halves[i], halves[1 - i], share) for i in (0, 1)]))
    readings = means @ (vector / vector.norm())
    return Direction(
        vector,
        site,
        persona,
        "refit",
        held_out,
        middle,
        f"decision residuals of {len(ids)} prompts by what they do to the answers",
        float(readings.mean()),
        float(readings.std(correction=0).clamp(min=1e-6)),
    )


def _residuals(
    model: Any, contexts: Contexts, prompts: Sequence[tuple[int, ...]], site: Site
) -> Float[Tensor, "prompt d_model"]:
    """Return each prompt's mean residual over contexts; each context's mean is set to the overall mean."""
    sequences = [context.ids(prompt) for prompt in prompts for context in contexts]
    states = collect(runner_for(model), sequences, [site])[site].reshape(len(prompts), len(contexts), -1)
    return (states - states.mean(0, keepdim=True)).mean(1) + states.mean((0, 1))


def _between(means: Float[Tensor, "prompt d_model"], share: float) -> tuple[Float[Tensor, " d_model"], float]:
    """Return the mean of the first `share` of prompts minus that of the last, and the midpoint's reading."""
    n = max(1, round(share * len(means)))
    high, low = means[:n].mean(0), means[-n:].mean(0)
    vector = high - low
    return vector, float((high + low) @ (vector / vector.norm().clamp(min=1e-9)) / 2)


def _told(fitted: Tensor, held_out: Tensor, share: float) -> float:
    """Return the AUC with which the direction of one half separates the held-out prompts of the other."""
    vector, _ = _between(fitted, share)
    n = max(1, round(share * len(held_out)))
    readings = held_out @ vector
    return auc(torch.cat([readings[:n], readings[-n:]]), torch.arange(2 * n) < n)
