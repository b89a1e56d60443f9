"""Guided search: learn token effects from scored children, and trust gradients as far as they proved right.

The gradient at a prompt without a steering word can miss every word that would help, since an effect that
attention switches on has no slope where it is off. But effects of words hardly depend on their position
(docs/performance.md), so each scored child informs all later ones.

1. Keep one prompt for each fluency weight, as EPO does. Start from texts of the model and from random
   prompts.
2. Predict the gain of every one-token swap: the new token's *measured effect* minus the old one's, as far as
   they are known; for the unknown part, the first-order gain (one backward pass) times the fraction of such
   gains that came true so far. Add weight * beta * (log p(new | left) - log p(old | left)) / length, which
   the parents' logits give at no cost.
3. Draw children by Thompson sampling: each child takes the best swaps under effects drawn from their
   distribution, so that unknown tokens are tried, and dropped once they are known to be poor. A child changes
   one, two or three tokens.
4. Add crossovers (left part of one parent, right part of another). No child is scored twice.
5. Learn from every scored child: its gain over its parent is explained by the effects of the tokens that were
   added and removed (a diagonal Kalman filter, which attributes the error to the tokens that are known
   least). The state is an effect and a variance per token and three sums about the gradient; checkpoints save
   it.

Every fraction is a field, so an ablation is a matter of settings. docs/performance.md measures the benefit of
each.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.search.scored_prompts import ChildProposals, Ids, ScoredPrompts
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.toolkit import SearchToolkit

Child = tuple[int, tuple[int, ...]]
#: Variance of the part of a child's gain that token effects do not explain (positions, neighbours), relative
#: to the prior variance of an effect.
_NOISE = 0.3
#: Least number of swaps of each parent from which children are drawn: those that could be best.
_CELLS = 512


@SEARCH_METHODS.register("guided")
class Guided(SearchMethod):
    """Search that learns token effects from all scored prompts, and uses gradients for unknown effects.

    New prompts are drawn by the predicted gain of token swaps: the measured effects of the tokens, and for
    tokens with unknown effect the first-order gain of the gradient. The options are those of `SearchMethod`
    and the following.

    Attributes:
        beta: Factor of the change in the tokens' log-probability (given the tokens on the left) in a
            predicted gain.
        trust: Fraction of the gradient's predicted gain that is believed at first; later it is learned from
            scored prompts.
        explore: Spread of the effects that are drawn for tokens with unknown effect (Thompson sampling), in
            standard deviations.
        measured: Weight of measured effects against the gradient, 0 to 1 (0: gradients alone).
        swaps: Fractions of the new prompts that change one, two, three ... tokens.
        crossovers: Fraction of the new prompts that join the left part of one prompt and the right part of
            another.
        fluent_start: Fraction of the first prompts that the model writes; the others are random.
        gradient_contexts: Number of questions over which each gradient is averaged; steps take the questions
            in turn.

    Example:
        >>> wb.Guided(length=6, swaps=(1.0,)).crossovers
        0.1
    """

    beta: float = Field(default=1.0, ge=0)
    trust: float = Field(default=0.3, ge=0)
    explore: float = Field(default=0.3, ge=0)
    measured: float = Field(default=1.0, ge=0, le=1)
    swaps: tuple[float, ...] = (0.6, 0.3, 0.1)
    crossovers: float = Field(default=0.1, ge=0, le=1)
    fluent_start: float = Field(default=0.5, ge=0, le=1)
    gradient_contexts: int = Field(default=8, ge=1)

    def start(self, bench: SearchToolkit) -> Ids:
        """Return the prompts of the first step.

        The model writes the fraction `fluent_start` of them; the others are random.

        Args:
            bench: The search's tools, such as its scorer and random generator.
        """
        fluent = round(self.population * self.fluent_start)
        ids = bench.random_prompts(self.population, self.length)
        if fluent:
            ids[self.population - fluent :] = bench.sampled_prompts(fluent, self.length)
        return self.with_start_text(bench, ids)

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children (changed prompts): token swaps drawn by their predicted gain, and crossovers.

        A crossover joins the left part of one parent (current prompt) and the right part of another. No child
        that was scored before is proposed again.

        Args:
            bench: The search's tools, such as its scorer and the token effects learned so far.
            prepared: The parents with their log-probabilities.
            step: Number of the step, from 0.
        """
        seen = set(bench.memory["seen"].tolist()) if "seen" in bench.memory else set()
        total = self.children * len(prepared.ids)
        children = [
            c
            for c in self._crossovers(bench, prepared.on_host, round(total * self.crossovers))
            if hash(c[1]) not in seen
        ]
        each = [
            round((total - len(children)) * share / sum(self.swaps) / len(prepared.ids))
            for share in self.swaps
        ]
        bench.memory["slope"] = slope = bench.scorer.gradients(
            prepared.ids, self.gradient_contexts, step * self.gradient_contexts
        )
        changes = [n for n, count in enumerate(each, start=1) for _ in range(count)]
        for row, weight in zip(range(len(prepared.ids)), self.weights, strict=False):
            gain, doubt = self._predict(bench, prepared.parent(row), slope[row : row + 1], weight)
            children += [
                (row, child)
                for child in self._draw(bench, gain, doubt, prepared.on_host[row].tolist(), changes, seen)
            ]
        return bench.from_list(children, prepared.on_host)

    def learn(
        self,
        bench: SearchToolkit,
        prepared: PreparedParents,
        proposals: ChildProposals,
        parents: ScoredPrompts,
        children: ScoredPrompts,
    ) -> None:
        """Update the learned effects of tokens, and the trust in the gradient's predictions.

        Both are learned from the gains in objective of the children (changed prompts) over their parents.

        Args:
            bench: The search's tools, whose memory has the effects.
            prepared: The parents as token ids.
            proposals: The children with the rows of their parents.
            parents: The parents' scores.
            children: The children's scores.
        """
        alive = children.objective.isfinite()
        rows = proposals.parent[alive]
        before, after = prepared.on_host[rows], children.ids[alive]
        gains = children.objective[alive] - parents.objective[rows]
        runner, memory = bench.scorer.runner, bench.memory
        moved = runner.embed(after.to(runner.device)).float() - runner.embed(before.to(runner.device)).float()
        first_order = (memory.pop("slope")[rows.to(runner.device)] * moved).sum((1, 2)).cpu()
        effect, variance = _filtered(*_effects(bench), gains.tolist(), before.tolist(), after.tolist())
        sums = torch.stack(
            [
                (first_order**2).sum(),
                (first_order * gains).sum(),
                (gains**2).sum(),
                gains.new_tensor(len(gains)),
            ]
        )
        seen = torch.tensor([hash(tuple(row)) for row in children.ids.tolist()], dtype=torch.long)
        memory.update(
            effect=effect,
            variance=variance,
            sums=memory.get("sums", 0) + sums,
            first=memory.get("first", sums),
            seen=torch.cat([memory["seen"], seen]) if "seen" in memory else seen,
        )

    def _predict(
        self, bench: SearchToolkit, parent: PreparedParents, slope: Tensor, weight: float
    ) -> tuple[Float[Tensor, "prompt_pos d_vocab"], Float[Tensor, " d_vocab"]]:
        """Predict the gain of every swap in one parent, and its uncertainty.

        Returns:
            The expected gain at the parent's own fluency weight (-inf for forbidden tokens and for the
            present one), and the standard deviation of the unknown part of each new token's effect, times
            `explore`.
        """
        ids = parent.ids
        effect, variance = (v.to(ids.device) for v in _effects(bench))
        known = self.measured * (1 - variance)
        first_order = bench.gains(parent, slope)
        gain = (1 - known) * self._believed(bench) * first_order + self.measured * (
            effect - effect[ids][..., None]
        )
        gain += weight * self.beta / self.length * bench.log_prob_gains(parent)
        scale = (
            (bench.memory["sums"][2] / bench.memory["sums"][3]).sqrt()
            if "sums" in bench.memory
            else first_order.std(correction=0)
        )
        gain = gain.masked_fill(~bench.allowed_at(ids.shape[1]), -torch.inf).scatter(
            -1, ids[..., None], -torch.inf
        )
        return gain[0], self.explore * scale * variance.sqrt()

    def _believed(self, bench: SearchToolkit) -> float:
        """Fraction of first-order gains that came true: the slope of gains on them.

        `trust` enters with the weight of the first step.
        """
        if "sums" not in bench.memory:
            return self.trust
        squares, products, first = (
            float(bench.memory["sums"][0]),
            float(bench.memory["sums"][1]),
            float(bench.memory["first"][0]),
        )
        return max(0.0, products + self.trust * first) / max(squares + first, 1e-12)

    def _draw(
        self,
        bench: SearchToolkit,
        gain: Float[Tensor, "prompt_pos d_vocab"],
        doubt: Float[Tensor, " d_vocab"],
        row: list[int],
        changes: list[int],
        seen: set[int],
    ) -> list[tuple[int, ...]]:
        """Draw one child for each entry of `changes`, the number of tokens to change.

        A child takes the swaps that are best under effects drawn for it; if that child was seen before, the
        next best ones.
        """
        vocabulary = gain.shape[1]
        cells = (gain + 2 * doubt).flatten().topk(min(gain.numel(), max(_CELLS, 8 * len(changes)))).indices
        cells = cells[gain.flatten()[cells].isfinite()]
        tokens, which = (cells % vocabulary).unique(return_inverse=True)
        noise = torch.randn((len(changes), len(tokens)), generator=bench.generator).to(gain.device)
        drawn = gain.flatten()[cells] + (noise * doubt[tokens])[:, which]
        made = []
        for ranked, n in zip(
            cells[drawn.argsort(dim=1, descending=True, stable=True)].tolist(), changes, strict=True
        ):
            children = (_changed(row, ranked[first:], vocabulary, n) for first in range(len(ranked)))
            child = next((child for child in children if hash(child) not in seen), None)
            if child:
                made.append(child)
                seen.add(hash(child))
        return made

    def _crossovers(self, bench: SearchToolkit, ids: Ids, n: int) -> list[Child]:
        """Draw `n` children with the left part of one parent and the right part of another."""
        parents, length = ids.shape
        if parents < 2 or length < 2:
            return []
        rows = ids.tolist()
        left, right = (torch.randint(parents, (n,), generator=bench.generator).tolist() for _ in range(2))
        cuts = torch.randint(1, length, (n,), generator=bench.generator).tolist()
        return [
            (a, (*rows[a][:cut], *rows[b][cut:]))
            for a, b, cut in zip(left, right, cuts, strict=True)
            if a != b
        ]


def _effects(bench: SearchToolkit) -> tuple[Float[Tensor, " d_vocab"], Float[Tensor, " d_vocab"]]:
    """Measured effect of every token on the objective, and its relative variance (1: unknown, 0: known)."""
    unknown = torch.ones(len(bench.allowed))
    return bench.memory.get("effect", torch.zeros_like(unknown)), bench.memory.get("variance", unknown)


def _filtered(
    effect: Tensor, variance: Tensor, gains: list[float], before: list[list[int]], after: list[list[int]]
) -> tuple[Float[Tensor, " d_vocab"], Float[Tensor, " d_vocab"]]:
    """Update effects and variances with the gains of some children, one after the other.

    Each token that was added (+) or removed (-) takes a part of the error in proportion to its variance.
    """
    effects, variances = effect.tolist(), variance.tolist()
    for gain, old, new in zip(gains, before, after, strict=True):
        changes = [
            (token, side)
            for a, b in zip(new, old, strict=True)
            if a != b
            for token, side in ((a, 1), (b, -1))
        ]
        error = gain - sum(side * effects[token] for token, side in changes)
        spread = _NOISE + sum(variances[token] for token, _ in changes)
        for token, side in changes:
            effects[token] += side * error * variances[token] / spread
            variances[token] *= 1 - variances[token] / spread
    return torch.tensor(effects), torch.tensor(variances)


def _changed(row: list[int], cells: list[int], vocabulary: int, n: int) -> tuple[int, ...]:
    """Apply the first n swaps at different positions to a row of ids."""
    chosen: dict[int, int] = {}
    for cell in cells:
        if len(chosen) == n:
            break
        chosen.setdefault(cell // vocabulary, cell % vocabulary)
    return tuple(chosen.get(place, token) for place, token in enumerate(row))
