"""Cross-entropy (fluency) of any prompt, measured as in the search: per token, given the text before it."""

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
    """Return the mean cross-entropy of a prompt inside the chat, in nats per token (lower is more fluent).

    As a system message it depends on the chat template and the prompt only. If the prompt follows the
    question, the result is the mean over the first `n_prefixes` distinct texts before the prompt.

    Args:
        model: A loaded model or its runner.
        contexts: Questions with the place for the prompt, such as the system message.
        prompt: Text of the prompt.
        n_prefixes: Largest number of distinct texts before the prompt to average over.

    Returns:
        Nats per token.

    Raises:
        UserError: The prompt's tokens change when the text is put into the chat.
    """
    return prompt_cross_entropies(model, contexts, [encode_prompt(model, contexts, prompt)], n_prefixes)[0]


def prompt_cross_entropies(
    model: Any,
    contexts: Contexts,
    prompts: Sequence[Sequence[int]],
    n_prefixes: int = 8,
    batch_tokens: int = 2048,
) -> list[float]:
    """Compute `prompt_cross_entropy` of many prompts in few forward passes.

    Args:
        model: A loaded model or its runner.
        contexts: Questions with the place for the prompt, such as the system message.
        prompts: Token ids of each prompt.
        n_prefixes: Largest number of distinct texts before the prompt to average over.
        batch_tokens: Largest number of tokens in one forward pass.

    Returns:
        Mean cross-entropy of each prompt's tokens, nats per token.
    """
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
    # a first token without text before it has no probability
    spans = [range(max(1, len(prefix)), len(prefix) + len(ids)) for prefix, ids in rows]
    row = torch.tensor([r for r, span in enumerate(spans) for _ in span], device=runner.device)
    at = torch.tensor([pos for span in spans for pos in span], device=runner.device)
    losses = -runner.log_probs_of(resid[row, at - 1], whole[row, at, None])[:, 0]
    return [float(part.mean()) for part in losses.split([len(span) for span in spans])]
