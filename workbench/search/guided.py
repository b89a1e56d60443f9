"""Guided search: gradients say what to try first, and what was tried says what to try next.

1. Keep one prompt for each fluency weight, as EPO does. Start from the model's own texts and from random prompts.
2. Predict the gain of every one-token swap. For a token that was never tried, the first-order gain (one backward pass) of that
   place; for one that was, its *measured effect*, the more of it the better it is known. Add weight * beta * (log p(new | left) -
   log p(old | left)) / length, which the parents' own logits give for nothing.
3. Draw children from the prediction itself (Gumbel noise, `temperature` standard deviations of the best predictions), over all
   places at once, instead of evenly from the top k of a random place (EPO, GCG); change one, two or three tokens at a time.
4. Mix in crossovers of two parents (left part of one, right part of the other). Nothing is scored twice.
5. Learn from every scored child: its gain over its parent is explained by effects of the tokens that came and went (a diagonal
   Kalman filter; the error goes to the tokens that are known least). What is kept between steps is one number and its
   variance a token; it is a part of the checkpoint.

Which of these pay is measured in docs/performance.md; every share is a field, so that an ablation is a value.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.search.bench import Bench
from workbench.search.fluency import Prepared
from workbench.search.method import Method
from workbench.search.scored import Ids, Proposals, Scored

Child = tuple[int, tuple[int, ...]]
#: Variance of what a child's gain holds beside the effects of its tokens (places, neighbours), in units of an unknown effect's.
_NOISE = 0.3


class Guided(Method):
    """beta: weight of the left-context log-probability. temperature: noise of the draws. trust: share of the first-order gain that
    is believed. measured: weight of measured effects beside the gradient, 0 to 1 (0: gradients alone). swaps: shares of the
    children that change one, two, three... tokens. crossovers: share that crosses two parents. fluent_start: share of the first
    population that the model writes itself. gradient_contexts: contexts of each gradient, taken in turn."""

    beta: float = Field(1.0, ge=0)
    temperature: float = Field(0.5, ge=0)
    trust: float = Field(0.3, ge=0)
    measured: float = Field(1.0, ge=0, le=1)
    swaps: tuple[float, ...] = (0.5, 0.3, 0.2)
    crossovers: float = Field(0.1, ge=0, le=1)
    fluent_start: float = Field(0.5, ge=0, le=1)
    gradient_contexts: int = Field(8, ge=1)

    def start(self, bench: Bench) -> Ids:
        fluent = round(self.population * self.fluent_start)
        ids = bench.random_prompts(self.population, self.length)
        if fluent:
            ids[self.population - fluent :] = bench.sampled_prompts(fluent, self.length)
        return self.with_start_text(bench, ids)

    def propose(self, bench: Bench, prepared: Prepared, step: int) -> Proposals:
        total = self.children * len(prepared.ids)
        children = self._crossovers(bench, prepared.ids, round(total * self.crossovers))
        each = [round((total - len(children)) * share / sum(self.swaps) / len(prepared.ids)) for share in self.swaps]
        slope = bench.scorer.gradients(prepared.ids, self.gradient_contexts, step * self.gradient_contexts)
        for row in range(len(prepared.ids)):
            table = self._predict(bench, prepared.parent(row), slope[row : row + 1], self.weights[row])
            for changed, n in enumerate(each, start=1):
                children += [(row, child) for child in self._draw(bench, table, prepared.ids[row].tolist(), n, changed)]
        seen = set(bench.memory["seen"].tolist()) if "seen" in bench.memory else set()
        return bench.from_list([c for c in children if hash(c[1]) not in seen] or children, prepared.ids)

    def learn(self, bench: Bench, prepared: Prepared, proposals: Proposals, parents: Scored, children: Scored) -> None:
        effect, variance = (v.tolist() for v in _effects(bench))
        gains = (children.objective - parents.objective[proposals.parent]).tolist()
        before = prepared.ids[proposals.parent].tolist()
        for gain, old, new in zip(gains, before, children.ids.tolist(), strict=True):
            changes = [(token, side) for pair in zip(new, old, strict=True) if pair[0] != pair[1] for token, side in zip(pair, (1, -1), strict=True)]
            error = gain - sum(side * effect[token] for token, side in changes)
            spread = _NOISE + sum(variance[token] for token, _ in changes)
            if abs(error) < float("inf"):
                for token, side in changes:
                    effect[token] += side * error * variance[token] / spread
                    variance[token] *= 1 - variance[token] / spread
        seen = bench.memory.get("seen", torch.empty(0, dtype=torch.long))
        fresh = torch.tensor([hash(tuple(row)) for row in children.ids.tolist()], dtype=torch.long)
        bench.memory.update(effect=torch.tensor(effect), variance=torch.tensor(variance), seen=torch.cat([seen, fresh]))

    def _predict(self, bench: Bench, parent: Prepared, slope: Tensor, weight: float) -> Float[Tensor, "prompt_pos d_vocab"]:
        """Expected value of every swap in one parent for its own fluency weight; forbidden and present tokens at -inf."""
        ids = parent.ids
        effect, variance = (v.to(ids.device) for v in _effects(bench))
        known = self.measured * (1 - variance)
        gain = (1 - known) * self.trust * bench.gains(parent, slope) + known * (effect - effect[ids][..., None])
        gain += weight * self.beta / self.length * bench.log_prob_gains(parent)
        return gain.masked_fill(~bench.allowed, -torch.inf).scatter(-1, ids[..., None], -torch.inf)[0]

    def _draw(self, bench: Bench, table: Float[Tensor, "prompt_pos d_vocab"], row: list[int], n: int, changed: int) -> list[tuple[int, ...]]:
        """n children of one parent, with the swaps of the greatest prediction plus noise at `changed` places."""
        best, cells = table.flatten().topk(min(table.numel(), max(64, 8 * n)))
        best, cells = best[best.isfinite()], cells[best.isfinite()]
        rounds = 1 if changed == 1 else n
        noisy = best + self.temperature * best.std(correction=0) * bench.gumbel((rounds, len(best)))
        order = cells[noisy.argsort(dim=1, descending=True, stable=True)].tolist()
        picks = [[cell] for cell in order[0][:n]] if changed == 1 else [_apart(ranked, table.shape[1], changed) for ranked in order]
        made = []
        for swaps in picks:
            child = list(row)
            for cell in swaps:
                child[cell // table.shape[1]] = cell % table.shape[1]
            made.append(tuple(child))
        return made

    def _crossovers(self, bench: Bench, ids: Ids, n: int) -> list[Child]:
        """Left part of one parent, right part of another."""
        parents, length = ids.shape
        if parents < 2 or length < 2:
            return []
        rows = ids.tolist()
        left, right = (torch.randint(parents, (n,), generator=bench.generator).tolist() for _ in range(2))
        cuts = torch.randint(1, length, (n,), generator=bench.generator).tolist()
        return [(a, (*rows[a][:cut], *rows[b][cut:])) for a, b, cut in zip(left, right, cuts, strict=True) if a != b]


def _effects(bench: Bench) -> tuple[Float[Tensor, " d_vocab"], Float[Tensor, " d_vocab"]]:
    """Measured effect of every token on the objective, and how little is known of it (1: nothing, 0: everything)."""
    unknown = torch.ones(len(bench.allowed))
    return bench.memory.get("effect", torch.zeros_like(unknown)), bench.memory.get("variance", unknown)


def _apart(cells: list[int], vocabulary: int, n: int) -> list[int]:
    """The first n cells that stand at different places."""
    chosen: dict[int, int] = {}
    for cell in cells:
        chosen.setdefault(cell // vocabulary, cell)
        if len(chosen) == n:
            break
    return list(chosen.values())
