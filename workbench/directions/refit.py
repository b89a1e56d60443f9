"""A direction fitted anew to what moves the answers: effective prompts against ineffective ones.

A direction from labelled data can be moved without the behaviour (a search warns of it: "moves the direction,
not the behaviour"). The prompts that such a search scored say where the behaviour moves: at the decision
token, the mean residual under the prompts that move the answers most, minus that under those that move them
least, each context's own mean taken off first.
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

#: Prompts that a refit needs: two of each side in each half.
_LEAST = 8


def refit_direction(
    model: Any,
    contexts: Contexts,
    prompts: Sequence[str | Sequence[int]],
    site: Site,
    persona: str = "persona",
    share: float = 0.25,
) -> Direction:
    """The direction along which prompts that raise the persona's answers differ from those that lower them.

    Args:
        model: A loaded model or its runner.
        contexts: Questions of search or train, never of test.
        prompts: Texts or token ids: what a search scored, the best and the worst among them.
        site: Where the residual stream is read, at the decision token.
        persona: What the direction stands for.
        share: Of the prompts on either side, 0 to 0.5.

    Returns:
        The direction. `auc`: how well one half of the prompts (every second by effect) tells the sides of the
        other, mean of both ways.

    Raises:
        UserError: Fewer than eight prompts, `share` outside 0 to 0.5, or prompts that all do the same.

    Example:
        >>> refit_direction(model, contexts, [c.ids for c in frontier.candidates], wb.Site(20))  # doctest: +SKIP
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
    """Of each prompt the mean over contexts, each context's mean over prompts replaced by the mean of all."""
    sequences = [context.ids(prompt) for prompt in prompts for context in contexts]
    states = collect(runner_for(model), sequences, [site])[site].reshape(len(prompts), len(contexts), -1)
    return (states - states.mean(0, keepdim=True)).mean(1) + states.mean((0, 1))


def _between(means: Float[Tensor, "prompt d_model"], share: float) -> tuple[Float[Tensor, " d_model"], float]:
    """Mean of the first `share` of the ordered prompts minus that of the last, and the reading in the middle of both."""
    n = max(1, round(share * len(means)))
    high, low = means[:n].mean(0), means[-n:].mean(0)
    vector = high - low
    return vector, float((high + low) @ (vector / vector.norm().clamp(min=1e-9)) / 2)


def _told(fitted: Tensor, held_out: Tensor, share: float) -> float:
    """AUC of the held-out prompts' sides by the direction of the others."""
    vector, _ = _between(fitted, share)
    n = max(1, round(share * len(held_out)))
    readings = held_out @ vector
    return auc(torch.cat([readings[:n], readings[-n:]]), torch.arange(2 * n) < n)
