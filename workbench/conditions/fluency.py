"""Fluency of any prompt, as the search measures it: mean cross-entropy of its tokens given what stands to their left."""

from __future__ import annotations

from typing import Any

import torch

from workbench.contexts import Contexts, encode_prompt
from workbench.models import runner_for


@torch.no_grad()
def prompt_fluency(model: Any, contexts: Contexts, prompt: str, n_prefixes: int = 8) -> float:
    """Nats a token, lower is more fluent. In the system slot it depends on template and prompt alone; behind a question it is
    the mean over the first `n_prefixes` distinct texts left of the slot. UserError if the prompt does not survive there."""
    runner = runner_for(model)
    ids = list(encode_prompt(runner, contexts, prompt))
    prefixes = list(dict.fromkeys(c.prefix_ids for c in contexts))[:n_prefixes]
    losses = []
    for prefix in prefixes:
        whole = torch.tensor([[*prefix, *ids]], device=runner.device)
        resid, _ = runner.run(runner.embed(whole), 0, runner.shape.n_layers)
        first = 0 if prefix else 1  # without anything to its left the first token has no probability
        at = torch.arange(len(prefix) - 1 + first, whole.shape[1] - 1, device=runner.device)
        log_probs = runner.logits(resid[0, at]).log_softmax(-1)
        losses.append(float(-log_probs.gather(-1, whole[0, at + 1, None]).mean()))
    return sum(losses) / len(losses)
