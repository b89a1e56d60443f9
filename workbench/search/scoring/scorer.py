"""Score many prompts on many contexts; every optimization is exact (it changes no score beyond rounding).

For prompts of n tokens, contexts with q tokens left of the slot and t tokens right of it, and an objective
that needs the first L blocks:

1. Contexts with the same ids left of the slot form a *group*; the prefix runs once per group
   (`prefix_cache.py`).
2. A parent prompt runs after the prefix. A child that differs from it from position p on reuses the parent's
   keys and values left of p, so only n - p tokens run. No published code does this.
3. In a group of several contexts (system slot) the prompt's cache is forked to them, so only t tokens run per
   context. Contexts with their own prefixes (prompt after the question) run prompt and suffix in one pass,
   many contexts at a time.
4. No block above L runs for the objective, and logits are computed only if the objective needs them. If no
   residual of the prompt is needed, block L runs completely only at the decision token (the last one before
   the answer); at other positions it computes keys and values. Answers of several tokens run after the
   suffix, one row per answer if both continue after they differ (`answer_tokens`).
5. The cross-entropy continues from the residual at L (`cross_entropy.py`), on a CPU only for children that
   can still be selected.
6. Gradients are taken at the embeddings' output, at the model's own scale (no one-hot matrix).

The cost model is in docs/performance.md. Scores are always means over the same contexts for every prompt, so
they are comparable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.contexts import Contexts
from workbench.models import Runner
from workbench.objectives import Objective
from workbench.search.nan_check import check_finite
from workbench.search.scored_prompts import FILLER, ChildProposals, Ids, ScoredPrompts, as_prompts, by_length
from workbench.search.scoring.batch_size import SMALLEST, BatchSize, halve_on_out_of_memory
from workbench.search.scoring.cross_entropy import PreparedParents, PromptCrossEntropy, ResidualTail
from workbench.search.scoring.objective_passes import ObjectivePasses, split_group
from workbench.search.scoring.prefix_cache import Optimizations, PrefixCache, PrefixGroup

#: Kinds of device whose results the CPU can read without waiting for earlier operations. Only there, children
#: that cannot be selected are left out before their cross-entropy is computed: two thirds to all of them can
#: be (docs/performance.md), so that a GPU would save less than it loses by the wait.
COMPUTES_AT_ONCE = frozenset({"cpu"})


class SurvivalTest(Protocol):
    """Interface of a test whether a search can still select a child (changed prompt); see `CanSurvive`."""

    def __call__(
        self,
        parents: ScoredPrompts,
        objective: Float[Tensor, " candidate"],
        bound: Float[Tensor, " candidate"],
    ) -> Float[Tensor, " candidate"]:
        """Return a margin per child, below 0 if the child cannot be used.

        Args:
            parents: The parents with their scores.
            objective: Objective of each child.
            bound: Lower bound of each child's cross-entropy, nats per token.
        """
        ...

    def order(
        self, objective: Float[Tensor, " candidate"], cross_entropy: Float[Tensor, " candidate"]
    ) -> Int[Tensor, " candidate"]:
        """Order scored prompts by the priority with which successive halving keeps them.

        Args:
            objective: Objective of each prompt.
            cross_entropy: Cross-entropy of each prompt, nats per token.

        Returns:
            Indices of the prompts, the one to keep first in front.
        """
        ...


@dataclass(frozen=True)
class ObjectiveSums:
    """Intermediate results of `Scorer.score_children`: sums over the questions scored so far.

    The prompts are the parents of a search step and their changed copies, the children.

    Attributes:
        parents: Sum of the objective over the questions, for each parent.
        children: Sum of the objective over the questions, for each child.
        tails: The children's residuals, from which their cross-entropy is computed.
        alive: Mask, on the CPU, of the children that successive halving has not dropped.
        cross_entropy: The children's cross-entropies computed so far, on the CPU; +inf for the others.
    """

    parents: Float[Tensor, " parent"]
    children: Float[Tensor, " candidate"]
    tails: list[ResidualTail]
    alive: Bool[Tensor, " candidate"]
    cross_entropy: Float[Tensor, " candidate"]


class Scorer:
    """Score prompts: compute their objective and cross-entropy on fixed questions.

    Args:
        runner: The model's runner.
        objective: The objective.
        contexts: The questions, rendered as chats with a place for the prompt; scores are means over them.
        optimizations: Which optimizations are used; all exact ones when None.
        batch_tokens: Batch size in tokens (`set_batch_size` finds how many fit into memory).
        cross_entropy_groups: Number of different texts left of the prompt over which the cross-entropy is
            averaged (questions with the same such text form one group).
    """

    def __init__(
        self,
        runner: Runner,
        objective: Objective,
        contexts: Contexts,
        optimizations: Optimizations | None = None,
        batch_tokens: int = 8192,
        cross_entropy_groups: int = 4,
    ) -> None:
        self.runner, self.objective = runner, objective
        #: Branches of a context (`answer_tokens`) count as contexts: the mean over them is the mean over
        #: contexts.
        self.contexts = contexts.branched if objective.needs_final else contexts
        self.optimizations = optimizations or Optimizations()
        self.chunk = BatchSize(batch_tokens, max(SMALLEST, batch_tokens // 4))
        depth = max(1, objective.depth(runner.shape.n_layers))
        self.prefixes = PrefixCache(
            runner, self.contexts, depth, self.optimizations, cross_entropy_groups, objective.sites
        )
        self.passes = ObjectivePasses(runner, objective, self.contexts, self.prefixes, self.chunk)
        self.groups, self.rounds = self.prefixes.groups, self.prefixes.rounds
        self.cross_entropy = PromptCrossEntropy(self.prefixes, self.chunk)

    def score(self, ids: Ids) -> ScoredPrompts:
        """Compute the objective and the cross-entropy of prompts of any lengths.

        Both are means over questions. Prompts of equal length are batched together.

        Args:
            ids: Token ids, one row per prompt; shorter rows are filled on the right with `FILLER` (-1).
        """
        if not (ids == FILLER).any():
            return self._score(ids)
        objective, cross_entropy = torch.zeros(2, len(ids), device=self.runner.device)
        for length, rows in by_length(ids):
            scored = self._score(ids[rows, :length])
            objective[rows], cross_entropy[rows] = scored.objective, scored.cross_entropy
        return ScoredPrompts(ids, objective, cross_entropy)

    @halve_on_out_of_memory
    @torch.no_grad()
    def objectives(self, ids: Ids) -> Float[Tensor, " candidate"]:
        """Compute the objective, but not the cross-entropy, of prompts of any lengths.

        It is the mean over all questions. If all questions share the text left of the prompt, each prompt
        runs as one row together with the text after it, padded on the right, so that prompts of different
        lengths are batched together.

        Args:
            ids: Token ids, one row per prompt; shorter rows are filled on the right with `FILLER` (-1).
        """
        if not self.optimizations.prefix_kv or any(group.joined for group in self.groups):
            return self.score(ids).objective
        objective = torch.zeros(len(ids), device=self.runner.device)
        for length, rows in by_length(ids):
            objective[rows] = self.objective.prompt_score(ids[rows, :length])
        prompts = as_prompts(ids)
        for group in self.groups:
            rows = [
                (i, member, (*prompt, *self.contexts[member].after_prompt))
                for i, prompt in enumerate(prompts)
                for member in group.members
            ]
            rows.sort(key=lambda row: len(row[2]))
            at_once = max(1, self.chunk.tokens // len(rows[-1][2])) if rows else 1
            for start in range(0, len(rows), at_once):
                scores = self.passes.rows(group, rows[start : start + at_once])
                index = torch.tensor(
                    [i for i, _, _ in rows[start : start + at_once]], device=self.runner.device
                )
                objective.index_add_(0, index, scores / len(self.contexts))
        return objective

    @halve_on_out_of_memory
    @torch.no_grad()
    def _score(self, ids: Ids) -> ScoredPrompts:
        objective, cross_entropy = torch.zeros(2, len(ids), device=self.runner.device)
        length, tokens = ids.shape[1], self.chunk.tokens
        for group, fluent in zip(self.groups, self.prefixes.fluent, strict=True):
            for rows in self.passes.row_chunks(group, len(ids), length, tokens):
                for part in self.passes.parts(group, group.members, len(rows), length):
                    scores, _, _ = self.passes.parents(part, self.prefixes.embed(part, ids[rows], 0))
                    objective[rows] += scores.sum(1) / len(self.contexts)
                if fluent:
                    cross_entropy[rows] += self.cross_entropy.of(fluent, ids[rows])
        scored = ScoredPrompts(ids, objective + self.objective.prompt_score(ids), cross_entropy)
        check_finite(self.runner, self.contexts, scored)
        return scored

    @halve_on_out_of_memory
    @torch.no_grad()
    def prepare(self, parents: Ids) -> PreparedParents:
        """Run parent prompts (which a search step changes) through all blocks.

        The results are the parents' cross-entropy and what their children (changed copies) need for theirs.

        Args:
            parents: Token ids of the parents.

        Returns:
            The parents' cross-entropy, with the log-probabilities and caches that their children need.
        """
        return self.cross_entropy.prepare(parents)

    @halve_on_out_of_memory
    def gradients(
        self,
        parents: Ids,
        n_contexts: int | None = None,
        first: int = 0,
        weights: Float[Tensor, " candidate"] | None = None,
    ) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Return the gradient of the mean objective with respect to the embeddings of the prompts' tokens.

        The embeddings are at the model's own scale.

        Args:
            parents: Token ids of the prompts.
            n_contexts: Number of questions to average over; None for all.
            first: Index of the first question; after the last question the first ones follow.
            weights: A factor for each prompt; if given, factor x gradient of the cross-entropy is subtracted
                (tokens count as inputs only, not as predicted targets). Questions that serve both gradients
                run once.
        """
        each = self.contexts[0].n_branches
        total = -(-len(self.contexts) // each)
        active = {
            (first + i) % total * each + k
            for i in range(min(n_contexts or total, total))
            for k in range(each)
        }
        out = torch.zeros(
            *parents.shape, self.runner.shape.d_model, device=self.runner.device, dtype=torch.float32
        )
        tokens = self.chunk.gradient_tokens
        for group, fluent in zip(self.groups, self.prefixes.fluent, strict=True):
            members = [member for member in group.members if member in active]
            left = fluent if weights is not None else None
            if members:
                some = group.part(members)
                for rows in self.passes.row_chunks(some, len(parents), parents.shape[1], tokens):
                    left = fluent if weights is not None else None
                    for chunk in self.passes.context_chunks(some, len(rows), parents.shape[1], tokens):
                        serves, left = split_group(left, chunk)
                        out[rows] += self._gradients_in(
                            some.part(chunk),
                            serves,
                            parents[rows],
                            len(active),
                            None if weights is None else weights[rows],
                        )
            if left is not None and weights is not None:
                out -= weights[:, None, None] * self.cross_entropy.gradients_in(left, parents)
        return out

    def _gradients_in(
        self,
        part: PrefixGroup,
        fluent: PrefixGroup | None,
        parents: Ids,
        n_active: int,
        weights: Float[Tensor, " candidate"] | None,
    ) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Gradient on one batch of contexts.

        `fluent` are those of its contexts (the first ones) whose cross-entropy is differentiated in the same
        pass.
        """
        embedded = self.prefixes.leaf(part, parents)
        kv = self.prefixes.fork(part.low, len(parents))
        scores, resid, _ = self.passes.forward(
            part, self.prefixes.lead(part, embedded), 0, kv, want_resid=fluent is not None
        )
        outputs, slopes = [scores], [torch.full_like(scores, 1 / n_active)]
        if fluent is not None and resid is not None and weights is not None:
            high = self.prefixes.fork(fluent.high, len(parents))
            top = self.prefixes.own(
                fluent, self.prefixes.to_top(resid[: len(fluent.prefixes) * len(parents)], high)[0]
            )
            outputs.append(top)
            slopes.append(
                -weights.repeat(len(fluent.prefixes))[:, None, None].to(top.dtype)
                * self.cross_entropy.top_slopes(fluent, top, parents)
            )
        slope = torch.autograd.grad(outputs, embedded, slopes)[0].float()
        return rearrange(
            slope, "(prefix row) pos d_model -> prefix row pos d_model", prefix=len(part.prefixes)
        ).sum(0)

    @halve_on_out_of_memory
    def cross_entropy_gradients(self, parents: Ids) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Return the gradient of the mean cross-entropy with respect to the prompts' embeddings.

        Tokens count as inputs only; as predicted targets they are held fixed.

        Args:
            parents: Token ids of the prompts.
        """
        return self.cross_entropy.gradients(parents)

    @halve_on_out_of_memory
    @torch.no_grad()
    def score_children(
        self, prepared: PreparedParents, children: ChildProposals, advantage: SurvivalTest | None = None
    ) -> tuple[ScoredPrompts, ScoredPrompts]:
        """Score parents and their children (changed copies) on the same questions in the same pass.

        With successive halving, questions are taken in rounds, and after each round the worse half of the
        children is dropped, as `advantage` orders them. That order needs the cross-entropy of the children
        that can still be selected, which is therefore computed after the first round.

        Args:
            prepared: The parents with their log-probabilities and KV caches.
            children: The children with the rows of their parents.
            advantage: Test whether a child can still be selected, with an order of children; None if all can.

        Returns:
            The parents and the children with their scores, on the CPU. The cross-entropy is +inf for children
            that cannot be selected, and the objective is -inf for children that were dropped.
        """
        given, children = children.to("cpu"), children.to(self.runner.device)
        sums = self._objective_sums(prepared, children, given, advantage)
        parents = ScoredPrompts(
            prepared.ids,
            sums.parents / len(self.contexts) + self.objective.prompt_score(prepared.ids),
            prepared.cross_entropy,
        )
        objective = sums.children / len(self.contexts) + self.objective.prompt_score(children.ids)
        chance = self._with_a_chance(prepared, children, parents, objective, advantage)
        missing = sums.alive & torch.isinf(sums.cross_entropy)
        found = self._cross_entropies(prepared, children, sums.tails, missing, chance)
        cross_entropy = torch.where(
            missing.to(found.device), found, sums.cross_entropy.to(found.device)
        ).masked_fill(~(sums.alive.to(found.device) & chance), torch.inf)
        both = ScoredPrompts(prepared.ids, parents.objective, parents.cross_entropy).join(
            ScoredPrompts(children.ids, objective, cross_entropy)
        )
        scores = torch.stack([both.objective, both.cross_entropy]).cpu()
        n = len(prepared.ids)
        parents = ScoredPrompts(prepared.on_host, scores[0, :n], scores[1, :n])
        scored = ScoredPrompts(given.ids, scores[0, n:], scores[1, n:])
        check_finite(self.runner, self.contexts, parents, scored)
        return parents, ScoredPrompts(
            given.ids, scored.objective.masked_fill(~sums.alive, -torch.inf), scored.cross_entropy
        )

    def _with_a_chance(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        parents: ScoredPrompts,
        objective: Tensor,
        advantage: SurvivalTest | None,
    ) -> Bool[Tensor, " candidate"]:
        """Mask, on the model's device, of the children that can be selected by `advantage`."""
        if advantage is None or not self.optimizations.deferred_cross_entropy:
            return torch.ones(len(children), dtype=torch.bool, device=self.runner.device)
        return advantage(parents, objective, self.cross_entropy.bound(prepared, children)) >= 0

    def _cross_entropies(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        tails: list[ResidualTail],
        wanted: Bool[Tensor, " candidate"],
        chance: Bool[Tensor, " candidate"],
    ) -> Float[Tensor, " candidate"]:
        """Cross-entropy of the children of `wanted` (a mask on the CPU) with a chance; +inf for the others.

        A GPU computes it also for those without a chance: leaving them out would save little, and make the
        CPU wait for the mask.
        """
        if self.runner.device.type in COMPUTES_AT_ONCE:
            wanted = wanted & chance
        return self.cross_entropy.children(prepared, children, tails, wanted).masked_fill(~chance, torch.inf)

    # ---- rounds of contexts -----------------------------------------------------------------------------------------

    def _objective_sums(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        given: ChildProposals,
        advantage: SurvivalTest | None,
    ) -> ObjectiveSums:
        """Sum the objective over the contexts, round by round; `given` are the children on the CPU."""
        device, n = self.runner.device, len(children)
        parent_sum, child_sum, cross_entropy = (
            torch.zeros(len(prepared.ids), device=device),
            torch.zeros(n, device=device),
            torch.full((n,), torch.inf),
        )
        sums, rows = (
            ObjectiveSums(parent_sum, child_sum, [], torch.ones(n, dtype=torch.bool), cross_entropy),
            torch.arange(n),
        )
        for number, contexts in enumerate(self.rounds):
            if number:
                there = rows.to(device)
                seen = sums.children / contexts.start + self.objective.prompt_score(children.ids)
                if advantage is not None and number == 1:
                    parents_seen = sums.parents / contexts.start + self.objective.prompt_score(prepared.ids)
                    parents = ScoredPrompts(prepared.ids, parents_seen, prepared.cross_entropy)
                    chance = self._with_a_chance(prepared, children, parents, seen, advantage)
                    every = torch.ones(n, dtype=torch.bool)
                    cross_entropy = self._cross_entropies(prepared, children, sums.tails, every, chance)
                    sums = replace(sums, cross_entropy=cross_entropy.cpu())
                order = (
                    advantage.order(seen[there], cross_entropy[there])
                    if advantage
                    else seen[there].argsort(descending=True, stable=True)
                )
                rows = rows[order[: max(1, len(rows) // 2)].cpu()].sort().values
            parent, child, tails = self._round(
                prepared.ids, children, given.position, rows, set(contexts), number == 0
            )
            sums = replace(
                sums, parents=sums.parents + parent, children=sums.children + child, tails=sums.tails + tails
            )
        return replace(sums, alive=torch.zeros(n, dtype=torch.bool).index_fill(0, rows, True))

    def _round(
        self,
        parents: Ids,
        children: ChildProposals,
        positions: Tensor,
        rows: Tensor,
        active: set[int],
        want_tails: bool,
    ) -> tuple[Float[Tensor, " parent"], Float[Tensor, " candidate"], list[ResidualTail]]:
        """Score parents and some children on some contexts, group by group.

        Children that change at one position share a batch. `positions` and `rows` are on the CPU.
        """
        parent_sum = torch.zeros(len(parents), device=self.runner.device)
        child_sum = torch.zeros(len(children), device=self.runner.device)
        tails: list[ResidualTail] = []
        for group, fluent in zip(
            self.groups, self.prefixes.fluent if want_tails else [None] * len(self.groups), strict=True
        ):
            members = [m for m in group.members if m in active]
            for part in self.passes.fluent_apart(
                self.passes.parts(group, members, len(parents), parents.shape[1]), fluent, len(rows)
            ):
                scores, _, cache = self.passes.parents(part, self.prefixes.embed(part, parents, 0), keep=True)
                parent_sum += scores.sum(1)
                tail, _ = split_group(fluent, part.members)
                for position, given in self.passes.child_chunks(part, children.ids.shape[1], positions, rows):
                    chunk = given.to(self.runner.device)
                    kv = self.prefixes.left_of(part.low, part, cache, children.parent[chunk], position)
                    embedded = self.prefixes.embed(part, children.ids[chunk, position:], position)
                    scores, resid, _ = self.passes.forward(
                        part, embedded, position, kv, want_resid=tail is not None
                    )
                    child_sum[chunk] += scores.sum(1)
                    if resid is not None and tail is not None and fluent is not None:
                        own = resid[: len(tail.prefixes) * len(chunk)].clone()
                        tails.append(
                            ResidualTail(self.cross_entropy.number(fluent), tail, position, given, own)
                        )
        return parent_sum, child_sum, tails
