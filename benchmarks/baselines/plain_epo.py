"""EPO as published: Thompson, Straznickas & Sklar, "Fluent dreaming for language models", arXiv 2402.01702.

As in the authors' code (github.com/Confirm-Solutions/dreamy) and in the persona searches built on it (arXiv
2601.02896):

1. Gradient: the prompt as a one-hot matrix times the embeddings, one full pass with all logits, backward to
   the one-hots of objective - weight * cross-entropy.
2. Scores: one full pass of the whole sequence for each candidate and context, all logits in float32; the
   objective is read by a hook, the cross-entropy of the prompt's tokens from the logits.

No cache, no early end, nothing shared between candidates or contexts. `batch`: sequences at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.baselines.target import Target, Text


def gradient(
    model: PreTrainedModel,
    target: Target,
    parents: Int[Tensor, "parent pos"],
    texts: Sequence[Text],
    weight: float = 0.1,
) -> Float[Tensor, "parent pos d_vocab"]:
    """Derivative of the mean of objective - weight * cross-entropy with respect to the parents' one-hot tokens."""
    table = model.get_input_embeddings().weight
    one_hot = torch.nn.functional.one_hot(parents, len(table)).to(table.dtype).requires_grad_(True)
    total = torch.zeros_like(one_hot, requires_grad=False)
    for left, right in texts:
        inside = [
            table[torch.tensor(ids, device=parents.device)].expand(len(parents), -1, -1)
            for ids in (left, right)
        ]
        with target.reading(model) as read:
            logits = model(
                inputs_embeds=torch.cat([inside[0], one_hot @ table, inside[1]], dim=1), use_cache=False
            ).logits.float()
        entropy = -(
            logits[:, len(left) - 1 : len(left) + parents.shape[1] - 1].log_softmax(-1) * one_hot
        ).sum((1, 2))
        value = (read[0] - weight * entropy / parents.shape[1]).sum() / len(texts)
        total += torch.autograd.grad(value, one_hot)[0]
    return total


@torch.no_grad()
def score(
    model: PreTrainedModel,
    target: Target,
    prompts: Int[Tensor, "candidate pos"],
    texts: Sequence[Text],
    batch: int = 16,
) -> tuple[Float[Tensor, " candidate"], Float[Tensor, " candidate"]]:
    """(mean objective, mean cross-entropy in nats per token) of every prompt over the texts."""
    objective, cross_entropy = torch.zeros(2, len(prompts), device=prompts.device)
    for left, right in texts:
        for start in range(0, len(prompts), batch):
            rows = prompts[start : start + batch]
            around = [
                torch.tensor([ids], device=prompts.device).expand(len(rows), -1) for ids in (left, right)
            ]
            with target.reading(model) as read:
                logits = model(
                    input_ids=torch.cat([around[0], rows, around[1]], dim=1), use_cache=False
                ).logits.float()
            log_probs = logits[:, :-1].log_softmax(-1)[:, len(left) - 1 : len(left) - 1 + rows.shape[1]]
            objective[start : start + batch] += read[0] / len(texts)
            cross_entropy[start : start + batch] -= log_probs.gather(-1, rows[..., None])[..., 0].mean(
                1
            ) / len(texts)
    return objective, cross_entropy
