"""Guided search: our mixture of proposals on EPO's population.

1. Keep one prompt for each fluency weight, as EPO does. Start from the model's own text and from random prompts, half each.
2. Predict every one-token swap's value: gradient gain + weight * beta * (log p(new | left) - log p(old | left)) / length. The
   gradient needs one backward pass, the log-probabilities are the parents' own logits and cost nothing.
3. Draw children from the prediction itself (Gumbel noise of `temperature` standard deviations of the best predictions), over
   all positions at once, instead of evenly from the top k of a random position (EPO, GCG).
4. Mix in: two swaps at once, crossovers of two parents (left part of one, right part of the other; effects of words add, so
   good halves combine), and a few blind swaps, since a gradient at one token says little about a distant one.

Every share is a field, so that an ablation is a value. Which of these pay is measured in docs/performance.md.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.search.bench import Bench
from workbench.search.fluency import Prepared
from workbench.search.method import Method
from workbench.search.scored import Ids, Proposals


class Guided(Method):
    """beta: weight of the left-context log-probability beside the gradient. temperature: noise of the draws. pairs, crossovers,
    blind: shares of the children that change two tokens, cross two parents, or are drawn blindly."""

    beta: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, ge=0)
    pairs: float = Field(0.2, ge=0, le=1)
    crossovers: float = Field(0.15, ge=0, le=1)
    blind: float = Field(0.1, ge=0, le=1)
    fluent_start: float = Field(0.5, ge=0, le=1)
    gradient_contexts: int = Field(8, ge=1)

    def start(self, bench: Bench) -> Ids:
        fluent = round(self.population * self.fluent_start)
        ids = super().start(bench)
        if fluent:
            ids[self.population - fluent :] = bench.sampled_prompts(fluent, self.length)
        return ids

    def propose(self, bench: Bench, prepared: Prepared, step: int) -> Proposals:
        predicted = self._predict(bench, prepared, step)
        total = self.children * len(prepared.ids)
        crossed = self._crossovers(bench, prepared.ids, round(total * self.crossovers))
        blind = self._blind(bench, prepared.ids, round(total * self.blind))
        paired = round(total * self.pairs)
        children = self._draw(bench, predicted, prepared.ids, paired, swaps=2)
        children += self._draw(bench, predicted, prepared.ids, total - paired - len(crossed) - len(blind), swaps=1)
        return bench.from_list(children + crossed + blind, prepared.ids)

    def _predict(self, bench: Bench, prepared: Prepared, step: int) -> Float[Tensor, "candidate prompt_pos d_vocab"]:
        """First-order value of every swap for the parent's own fluency weight; forbidden and present tokens at -inf."""
        weights = torch.tensor(self.weights, device=prepared.ids.device)[: len(prepared.ids), None, None]
        slope = bench.scorer.gradients(prepared.ids, self.gradient_contexts, step * self.gradient_contexts)
        table = bench.gains(prepared, slope) + weights * self.beta / self.length * bench.log_prob_gains(prepared)
        return table.masked_fill(~bench.allowed, -torch.inf).scatter(-1, prepared.ids[..., None], -torch.inf)

    def _draw(self, bench: Bench, predicted: Tensor, ids: Ids, n: int, swaps: int) -> list[tuple[int, tuple[int, ...]]]:
        """n children whose swaps have the greatest prediction plus noise; the same number for each parent."""
        parents, _, vocabulary = predicted.shape
        each = -(-n // parents) if n > 0 else 0
        flat = predicted.reshape(parents, -1)
        best, where = flat.topk(min(flat.shape[1], max(64, 8 * each * swaps)), dim=1)
        scale = self.temperature * torch.where(best.isfinite(), best, torch.nan).nan_to_num(0.0).std(dim=1, keepdim=True)
        children = []
        for _ in range(swaps):
            noise = -torch.log(-torch.log(torch.rand(best.shape, generator=bench.generator).clamp(1e-9, 1 - 1e-9)))
            order = (best + scale * noise.to(best.device)).argsort(dim=1, descending=True, stable=True)[:, :each]
            children.append(where.gather(1, order))
        made = []
        for parent, row in enumerate(ids.tolist()):
            for choice in torch.stack(children, dim=-1)[parent].tolist():
                child = list(row)
                for flat_index in choice:
                    child[flat_index // vocabulary] = flat_index % vocabulary
                made.append((parent, tuple(child)))
        return made[:n] if parents == 1 else made

    def _crossovers(self, bench: Bench, ids: Ids, n: int) -> list[tuple[int, tuple[int, ...]]]:
        """Left part of one parent, right part of another."""
        parents, length = ids.shape
        if parents < 2 or length < 2:
            return []
        rows = ids.tolist()
        left, right = (torch.randint(parents, (n,), generator=bench.generator).tolist() for _ in range(2))
        cuts = torch.randint(1, length, (n,), generator=bench.generator).tolist()
        return [(a, (*rows[a][:cut], *rows[b][cut:])) for a, b, cut in zip(left, right, cuts, strict=True) if a != b]

    def _blind(self, bench: Bench, ids: Ids, n: int) -> list[tuple[int, tuple[int, ...]]]:
        """One token at a random place, drawn evenly from all allowed ones."""
        choices = torch.nonzero(bench.allowed.cpu())[:, 0]
        rows, made = ids.tolist(), []
        draw = lambda high: int(torch.randint(high, (1,), generator=bench.generator))  # noqa: E731
        for _ in range(n):
            parent = draw(len(rows))
            child = list(rows[parent])
            child[draw(len(child))] = int(choices[draw(len(choices))])
            made.append((parent, tuple(child)))
        return made
