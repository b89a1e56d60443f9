"""GCG with a cached prefix, as nanoGCG does it (github.com/GraySwanAI/nanoGCG; Zou et al., arXiv 2307.15043).

1. The keys and values of the text left of the prompt are computed once for every context.
2. Gradient: one-hot prompt times the embeddings, continuing the cache; full depth, all logits.
3. Scores: prompt and suffix of a batch of candidates continuing the cache, expanded to the batch; full depth,
   all logits.

No fluency. The objective is read by a hook, so that all searches here maximise the same number; the
cross-entropy of the answer, which nanoGCG maximises, is computed with it from the logits, as it does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from benchmarks.baselines.target import Target, Text

Prefix = list[tuple[Tensor, Tensor]]  # keys and values of each layer, one row


@torch.no_grad()
def prefixes(model: PreTrainedModel, texts: Sequence[Text]) -> list[Prefix]:
    """Keys and values left of the prompt, for every context."""
    device = model.device
    caches = [
        model(input_ids=torch.tensor([left], device=device), use_cache=True).past_key_values
        for left, _ in texts
    ]
    return [[(layer.keys, layer.values) for layer in cache.layers] for cache in caches]


def gradient(
    model: PreTrainedModel,
    target: Target,
    parents: Int[Tensor, "parent pos"],
    texts: Sequence[Text],
    caches: Sequence[Prefix],
) -> Float[Tensor, "parent pos d_vocab"]:
    """Derivative of the mean objective with respect to the parents' one-hot tokens."""
    table = model.get_input_embeddings().weight
    one_hot = torch.nn.functional.one_hot(parents, len(table)).to(table.dtype).requires_grad_(True)
    total = torch.zeros_like(one_hot, requires_grad=False)
    for (_, right), cache in zip(texts, caches, strict=True):
        behind = table[torch.tensor(right, device=parents.device)].expand(len(parents), -1, -1)
        with target.reading(model) as read:
            model(
                inputs_embeds=torch.cat([one_hot @ table, behind], dim=1),
                past_key_values=_expand(model, cache, len(parents)),
                use_cache=True,
            )
        total += torch.autograd.grad(read[0].sum() / len(texts), one_hot)[0]
    return total


@torch.no_grad()
def score(
    model: PreTrainedModel,
    target: Target,
    prompts: Int[Tensor, "candidate pos"],
    texts: Sequence[Text],
    caches: Sequence[Prefix],
    answer: int = 0,
    batch: int = 64,
) -> Float[Tensor, " candidate"]:
    """Mean objective of every prompt over the texts."""
    objective, answered = torch.zeros(2, len(prompts), device=prompts.device)
    for (_, right), cache in zip(texts, caches, strict=True):
        for start in range(0, len(prompts), batch):
            rows = prompts[start : start + batch]
            behind = torch.tensor([right], device=prompts.device).expand(len(rows), -1)
            with target.reading(model) as read:
                ids = torch.cat([rows, behind], dim=1)
                logits = model(
                    input_ids=ids, past_key_values=_expand(model, cache, len(rows)), use_cache=True
                ).logits
            answered[start : start + batch] -= logits[:, -1].float().log_softmax(-1)[:, answer]
            objective[start : start + batch] += read[0] / len(texts)
    return objective


def _expand(model: PreTrainedModel, prefix: Prefix, rows: int) -> DynamicCache:
    """A fresh cache of `rows` rows (Hugging Face's caches are changed in place by every pass)."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return cache
