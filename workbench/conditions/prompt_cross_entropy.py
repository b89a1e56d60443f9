"""Fluency of any prompt, as the search measures it: mean cross-entropy of its tokens given what is to their left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange

from workbench.contexts import Contexts
from workbench.models import Runner, pad_right, runner_for
from workbench.prompt_tokens import encode_prompt


def prompt_cross_entropy(model: Any, contexts: Contexts, prompt: str, n_prefixes: int = 8) -> float:
    """Nats a token, lower is more fluent.

    In the system slot it depends on template and prompt alone; after a question it is the mean over the first
    `n_prefixes` distinct texts left of the slot. UserError if the prompt does not survive there.
    """
    return prompt_cross_entropies(model, contexts, [encode_prompt(model, contexts, prompt)], n_prefixes)[0]


def prompt_cross_entropies(
    model: Any,
    contexts: Contexts,
    prompts: Sequence[Sequence[int]],
    n_prefixes: int = 8,
    batch_tokens: int = 2048,
) -> list[float]:
    """`prompt_cross_entropy` of many prompts, as ids, in few passes. batch_tokens: tokens run at a time."""
    runner = runner_for(model)
    prefixes = list(dict.fromkeys(c.prefix_ids for c in contexts))[:n_prefixes]
    rows = [(prefix, tuple(ids)) for ids in prompts for prefix in prefixes]
    at_once = (
        max(1, runner.at_most(batch_tokens) // max(len(prefix) + len(ids) for prefix, ids in rows))
        if rows
        else 1
    )
    losses = [loss for k in range(0, len(rows), at_once) for loss in _losses(runner, rows[k : k + at_once])]
    return (
        rearrange(np.asarray(losses), "(prompt prefix) -> prompt prefix", prefix=len(prefixes))
        .mean(axis=1)
        .tolist()
        if rows
        else []
    )


@torch.no_grad()
def _losses(runner: Runner, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
    whole = pad_right([(*prefix, *ids) for prefix, ids in rows]).to(runner.device)
    resid, _ = runner.run(runner.embed(whole), 0, runner.shape.n_layers)
    # without anything to its left the first token has no probability
    spans = [range(max(1, len(prefix)), len(prefix) + len(ids)) for prefix, ids in rows]
    row = torch.tensor([r for r, span in enumerate(spans) for _ in span], device=runner.device)
    at = torch.tensor([pos for span in spans for pos in span], device=runner.device)
    losses = -runner.log_probs_of(resid[row, at - 1], whole[row, at, None])[:, 0]
    return [float(part.mean()) for part in losses.split([len(span) for span in spans])]
