"""Scores of many prompts on many contexts: every optimization here is exact (it changes no score beyond rounding).

For prompts of n tokens, contexts with q tokens left of the slot and t right of it, an objective that needs L
of the blocks:

1. Contexts with the same ids left of the slot form a *group*; the prefix is run once a group (`prefixes.py`).
2. A parent prompt is run after the prefix. A child that differs from it from position p on reuses the
   parent's keys and values left of p: only n - p tokens are run. No published code does this.
3. In a group of several contexts (system slot) the prompt's cache is forked to them: only t tokens a context
   are run. Contexts with prefixes of their own (prompt after the question) have prompt and suffix run in one
   pass, many contexts in one run of the blocks.
4. Nothing above block L is run for the objective, and no logits are made unless the objective needs them. Of
   block L itself, where no residual of the prompt is wanted, only the decision token is run to its end; of
   the others its keys and values suffice. Answers of several tokens are run after the suffix, an answer a row
   where both go on after they part (`answer_tokens`).
5. Fluency continues from the residual at L, and only for children that can still win (`fluency.py`).
6. Gradients are taken at the embeddings' output, at the model's own scale (no one-hot matrix).

Cost model: see docs/performance.md. Objective scores are means over the same contexts for every prompt,
always: no score is luckier than another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.answer_tokens import AnswerTable
from workbench.contexts import Contexts
from workbench.models import KeyValueCache, Runner, pad_right
from workbench.objectives import Objective, Readout
from workbench.search.nan_check import check_finite
from workbench.search.scored_prompts import FILLER, ChildProposals, Ids, ScoredPrompts, as_prompts, by_length
from workbench.search.scoring.batch_size import (
    LOGITS_PER_TOKEN,
    SMALLEST,
    BatchSize,
    BatchSizePlan,
    halve_on_out_of_memory,
    plan_batch_size,
)
from workbench.search.scoring.candidate_batching import batch_candidates, launch_overhead_tokens
from workbench.search.scoring.cross_entropy import PreparedParents, PromptCrossEntropy, ResidualTail
from workbench.search.scoring.log_prob_table import WHOLE
from workbench.search.scoring.prefix_cache import Optimizations, PrefixCache, PrefixGroup


class SurvivalTest(Protocol):
    """Which children a search can use (`CanSurvive`)."""

    def __call__(
        self,
        parents: ScoredPrompts,
        objective: Float[Tensor, " candidate"],
        bound: Float[Tensor, " candidate"],
    ) -> Float[Tensor, " candidate"]:
        """How far each child is from being of use, given a lower bound of its fluency; below 0 it cannot be."""
        ...

    def order(
        self, objective: Float[Tensor, " candidate"], cross_entropy: Float[Tensor, " candidate"]
    ) -> Int[Tensor, " candidate"]:
        """The candidates, from the one to keep first."""
        ...


@dataclass(frozen=True)
class ObjectiveSums:
    """Of the rounds: sums over contexts, what fluency goes on from, the survivors, and the fluency that the rounds needed (both on the CPU)."""

    parents: Float[Tensor, " parent"]
    children: Float[Tensor, " candidate"]
    tails: list[ResidualTail]
    alive: Bool[Tensor, " candidate"]
    cross_entropy: Float[Tensor, " candidate"]


class Scorer:
    """Scores prompts for one objective on fixed contexts.

    batch_tokens: tokens that are run at a time (`plan` finds how many fit). fluency_groups: groups of
    contexts (with different text left of the slot) that fluency is averaged over.
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
        #: Branches count as contexts here (`answer_tokens`): the mean over them is the mean over contexts.
        self.contexts = contexts.branched if objective.needs_final else contexts
        self.optimizations = optimizations or Optimizations()
        self.chunk = BatchSize(batch_tokens, max(SMALLEST, batch_tokens // 4))
        self.depth = max(1, objective.depth(runner.shape.n_layers))
        self.answers = AnswerTable(self.contexts, runner.device)
        self.prefixes = PrefixCache(
            runner, self.contexts, self.depth, self.optimizations, cross_entropy_groups, objective.sites
        )
        self.groups, self.rounds = self.prefixes.groups, self.prefixes.rounds
        self.cross_entropy = PromptCrossEntropy(self.prefixes, self.chunk)

    def plan(self, length: int, population: int = 1, children: int = 0) -> BatchSizePlan | None:
        """Measures what a step of `population` parents of `length` tokens needs and takes on the batch that fits into the free memory.

        None, and nothing changed, on a device whose memory cannot be read. children: of a step; their
        residuals are kept.
        """
        longest = sorted(self.contexts, key=lambda c: len(c.sequence(())), reverse=True)
        suffix = max(len(c.after_prompt) for c in longest)
        unit, shared = length + suffix, not all(group.joined for group in self.groups)

        def few(tokens: int) -> tuple[Scorer, Ids, int]:
            """A scorer on as few contexts as fill a batch, prompts that do, and the tokens that are then really run at a time."""
            some = replace(self.contexts, items=tuple(longest[: tokens // unit if shared else 1]))
            fluent = -(-len(some) * self.prefixes.n_fluent // len(self.contexts)) if shared else 1
            scorer = Scorer(
                self.runner, self.objective, some, replace(self.optimizations, halving=0.0), tokens, fluent
            )
            scorer.chunk.gradient_tokens = tokens
            n = scorer._rows_at_once(scorer.groups[0], length, tokens)
            ids = (
                torch.arange(n * length, device=self.runner.device).reshape(n, length)
                % self.runner.shape.d_vocab
            )
            batch_candidates = scorer._context_chunks(scorer.groups[0], n, length, tokens)[0]
            return scorer, ids, n * len(batch_candidates) * suffix if shared else n * unit

        def forward(tokens: int) -> tuple[int, Callable[[], object]]:
            scorer, ids, run = few(tokens)
            parents, position = ids[:1].clone(), min(1, length - 1)
            ids[:, :position] = parents[0, :position]
            rows = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
            return run, lambda: scorer.score_children(
                scorer.prepare(parents), ChildProposals(ids, rows, rows + position)
            )

        def gradient(tokens: int) -> tuple[int, Callable[[], object]]:
            scorer, ids, run = few(tokens)
            return run, lambda: scorer.gradients(ids, weights=torch.ones(len(ids), device=ids.device))

        most_fluent = max(len(group.prefixes) for group in self.prefixes.fluent if group)
        counted = dict(vars(self.runner.meter))
        number = torch.finfo(self.runner.dtype).bits // 8
        tails = number * children * (length + 1) // 2 * self.runner.shape.d_model * self.prefixes.n_fluent
        table = population * length * self.runner.shape.d_vocab
        kept = tails + (4 * (table - table // max(1, population)) if table <= WHOLE else 0)
        # From here on a batch's logits grow with its tokens; below, one row is made at least.
        unit_of_logits = length * self.runner.shape.d_vocab // LOGITS_PER_TOKEN
        plan = plan_batch_size(
            forward,
            gradient,
            max(unit, unit_of_logits),
            unit,
            self.runner.device,
            population * max(unit, most_fluent * length),
            kept,
        )
        vars(self.runner.meter).update(counted)
        if plan is not None:
            self.chunk.tokens, self.chunk.gradient_tokens = plan.chunk.tokens, plan.chunk.gradient_tokens
        return plan

    def score(self, ids: Ids) -> ScoredPrompts:
        """Objective (mean over all contexts) and cross-entropy of any prompts, in full: those of one length at a time."""
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
        """Objective (mean over all contexts) of prompts of any lengths.

        Where contexts share what is left of the slot, each prompt runs with its suffix as one row, padded on
        the right, so that all lengths are one batch.
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
                scores = self._rows(group, rows[start : start + at_once])
                index = torch.tensor(
                    [i for i, _, _ in rows[start : start + at_once]], device=self.runner.device
                )
                objective.index_add_(0, index, scores / len(self.contexts))
        return objective

    def _rows(
        self, group: PrefixGroup, rows: Sequence[tuple[int, int, tuple[int, ...]]]
    ) -> Float[Tensor, " row"]:
        """The objective of (prompt, context, ids after the prefix), one row each."""
        ids = pad_right([row for _, _, row in rows]).to(self.runner.device)
        members = [member for _, member, _ in rows]
        last = torch.tensor(
            [len(row) - 1 - len(self.contexts[m].tail) for m, (_, _, row) in zip(members, rows, strict=True)],
            device=ids.device,
        )
        kv, embedded = self.prefixes.fork(group.low, len(rows)), self.runner.embed(ids, group.length)
        with self.runner.capture(self.objective.sites) as caught:
            if self._last_position(members):
                resid = self.runner.run_at(embedded, 0, self.depth, last, kv, self.objective.sites)
            else:
                resid, _ = self.runner.run(embedded, 0, self.depth, kv)
        return self._read(caught, resid, last, members)

    @halve_on_out_of_memory
    @torch.no_grad()
    def _score(self, ids: Ids) -> ScoredPrompts:
        objective, cross_entropy = torch.zeros(2, len(ids), device=self.runner.device)
        length, tokens = ids.shape[1], self.chunk.tokens
        for group, fluent in zip(self.groups, self.prefixes.fluent, strict=True):
            for rows in self._row_chunks(group, len(ids), length, tokens):
                for part in self._parts(group, group.members, len(rows), length):
                    scores, _, _ = self._parents(part, self.prefixes.embed(part, ids[rows], 0))
                    objective[rows] += scores.sum(1) / len(self.contexts)
                if fluent:
                    cross_entropy[rows] += self.cross_entropy.of(fluent, ids[rows])
        scored = ScoredPrompts(ids, objective + self.objective.prompt_score(ids), cross_entropy)
        check_finite(self.runner, self.contexts, scored)
        return scored

    @halve_on_out_of_memory
    @torch.no_grad()
    def prepare(self, parents: Ids) -> PreparedParents:
        """Fluency of parents, and what their children will need: log-probabilities and caches."""
        return self.cross_entropy.prepare(parents)

    @halve_on_out_of_memory
    def gradients(
        self,
        parents: Ids,
        n_contexts: int | None = None,
        first: int = 0,
        weights: Float[Tensor, " candidate"] | None = None,
    ) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Gradient of the mean objective with respect to the prompt's embeddings (model's own scale).

        Over n contexts counted from `first` round the list (all when None). weights: of each parent; the
        gradient of weight x cross-entropy (tokens as targets held fixed) is then taken off, in the same
        passes where a context serves both.
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
                for rows in self._row_chunks(some, len(parents), parents.shape[1], tokens):
                    left = fluent if weights is not None else None
                    for chunk in self._context_chunks(some, len(rows), parents.shape[1], tokens):
                        serves, left = _split(left, chunk)
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
        """Of one batch of contexts; `fluent`: those of them whose cross-entropy is taken with it (the first ones)."""
        embedded = self.prefixes.leaf(part, parents)
        kv = self.prefixes.fork(part.low, len(parents))
        scores, resid, _ = self._forward(
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
        """Gradient of the fluency (mean cross-entropy) with respect to the prompt's embeddings, tokens as targets held fixed."""
        return self.cross_entropy.gradients(parents)

    @halve_on_out_of_memory
    @torch.no_grad()
    def score_children(
        self, prepared: PreparedParents, children: ChildProposals, advantage: SurvivalTest | None = None
    ) -> tuple[ScoredPrompts, ScoredPrompts]:
        """(parents, children) on the same contexts in the same pass, on the CPU.

        A child without any advantage gets no fluency (+inf). With halving, half of the children are dropped
        after each round of contexts (objective -inf), in the advantage's order; for that the fluency of those
        with a chance is taken after the first.
        """
        given, children = children.to("cpu"), children.to(self.runner.device)
        sums = self._objective_sums(prepared, children, given, advantage)
        parents = ScoredPrompts(
            prepared.ids,
            sums.parents / len(self.contexts) + self.objective.prompt_score(prepared.ids),
            prepared.cross_entropy,
        )
        objective = sums.children / len(self.contexts) + self.objective.prompt_score(children.ids)
        wanted = sums.alive & self._with_a_chance(prepared, children, parents, objective, advantage)
        missing = wanted & torch.isinf(sums.cross_entropy)
        found = self.cross_entropy.children(prepared, children, sums.tails, missing)
        cross_entropy = torch.where(
            missing.to(found.device), found, sums.cross_entropy.to(found.device)
        ).masked_fill(~wanted.to(found.device), torch.inf)
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
        """On the CPU."""
        if advantage is None or not self.optimizations.deferred_cross_entropy:
            return torch.ones(len(children), dtype=torch.bool)
        return (advantage(parents, objective, self.cross_entropy.bound(prepared, children)) >= 0).cpu()

    # ---- rounds of contexts -----------------------------------------------------------------------------------------

    def _objective_sums(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        given: ChildProposals,
        advantage: SurvivalTest | None,
    ) -> ObjectiveSums:
        """Round by round. given: the children on the CPU."""
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
                    wanted = self._with_a_chance(prepared, children, parents, seen, advantage)
                    cross_entropy = self.cross_entropy.children(prepared, children, sums.tails, wanted)
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
        """Parents and the chosen children on some contexts, group by group, children of one changed position together.

        positions, rows: on the CPU.
        """
        parent_sum = torch.zeros(len(parents), device=self.runner.device)
        child_sum = torch.zeros(len(children), device=self.runner.device)
        tails: list[ResidualTail] = []
        for group, fluent in zip(
            self.groups, self.prefixes.fluent if want_tails else [None] * len(self.groups), strict=True
        ):
            members = [m for m in group.members if m in active]
            for part in self._fluent_apart(
                self._parts(group, members, len(parents), parents.shape[1]), fluent, len(rows)
            ):
                scores, _, cache = self._parents(part, self.prefixes.embed(part, parents, 0), keep=True)
                parent_sum += scores.sum(1)
                tail, _ = _split(fluent, part.members)
                for position, given in self._child_chunks(part, children.ids.shape[1], positions, rows):
                    chunk = given.to(self.runner.device)
                    kv = self.prefixes.left_of(part.low, part, cache, children.parent[chunk], position)
                    embedded = self.prefixes.embed(part, children.ids[chunk, position:], position)
                    scores, resid, _ = self._forward(
                        part, embedded, position, kv, want_resid=tail is not None
                    )
                    child_sum[chunk] += scores.sum(1)
                    if resid is not None and tail is not None and fluent is not None:
                        own = resid[: len(tail.prefixes) * len(chunk)].clone()
                        tails.append(
                            ResidualTail(self.cross_entropy.number(fluent), tail, position, given, own)
                        )
        return parent_sum, child_sum, tails

    # ---- one batch --------------------------------------------------------------------------------------------------

    def _parents(
        self, group: PrefixGroup, embedded: Tensor, keep: bool = False
    ) -> tuple[
        Float[Tensor, "row context"], Float[Tensor, "row prompt_pos d_model"] | None, KeyValueCache | None
    ]:
        """Whole prompts after the group's prefixes."""
        kv = self.prefixes.fork(group.low, len(embedded) // len(group.prefixes))
        return self._forward(group, embedded, 0, kv, keep, want_resid=False)

    def _forward(
        self,
        group: PrefixGroup,
        embedded: Tensor,
        position: int,
        kv: KeyValueCache | None,
        keep: bool = False,
        want_resid: bool = True,
    ) -> tuple[Float[Tensor, "row context"], Float[Tensor, "row tail d_model"] | None, KeyValueCache | None]:
        """Objective of rows on the group's contexts.

        The prompt's residuals at the read-out depth (prefix by prefix) and its cache, where they are wanted.
        """
        if group.joined:
            return self._forward_joined(group, embedded, position, kv, keep, want_resid)
        resid, cache = self.runner.run(embedded, 0, self.depth, kv, keep=True)
        assert cache is not None, "it was kept"
        chunks = self._context_chunks(group, len(embedded), embedded.shape[1], self.chunk.tokens)
        return (
            torch.cat([self._suffixes(cache, chunk, len(embedded)) for chunk in chunks], dim=1),
            resid,
            cache,
        )

    def _forward_joined(
        self,
        group: PrefixGroup,
        embedded: Tensor,
        position: int,
        kv: KeyValueCache | None,
        keep: bool,
        want_resid: bool,
    ) -> tuple[Tensor, Tensor | None, KeyValueCache | None]:
        """Prompt and suffix in one run, for each prefix its own suffix."""
        n = embedded.shape[1]
        suffixes, last = self.prefixes.suffixes(group, position + self.prefixes.own(group, embedded).shape[1])
        each = len(embedded) // len(group.prefixes)
        whole = torch.cat([embedded, suffixes.repeat_interleave(each, 0)], dim=1)
        last, members = (
            (n + last).repeat_interleave(each),
            [member for member in group.members for _ in range(each)],
        )
        with self.runner.capture(self.objective.sites) as caught:
            if keep or want_resid or not self._last_position(members):
                resid, cache = self.runner.run(whole, 0, self.depth, kv, keep=keep)
            else:
                resid, cache = self.runner.run_at(whole, 0, self.depth, last, kv, self.objective.sites), None
        scores = rearrange(self._read(caught, resid, last, members), "(prefix row) -> row prefix", row=each)
        return scores, resid[:, :n] if want_resid else None, cache

    def _suffixes(self, cache: KeyValueCache, members: list[int], rows: int) -> Float[Tensor, "row context"]:
        """The suffixes of some contexts after each of the rows' caches."""
        contexts = [self.contexts[m] for m in members]
        ids = pad_right([c.after_prompt for c in contexts]).to(self.runner.device)
        embedded = self.runner.embed(ids, cache.length).repeat(rows, 1, 1)
        fork = torch.arange(rows, device=self.runner.device).repeat_interleave(len(members))
        last = torch.tensor([len(c.suffix_ids) - 1 for c in contexts], device=self.runner.device).repeat(rows)
        with self.runner.capture(self.objective.sites) as caught:
            if self._last_position(members):
                resid = self.runner.run_at(
                    embedded, 0, self.depth, last, cache.fork(fork), self.objective.sites
                )
            else:
                resid, _ = self.runner.run(embedded, 0, self.depth, cache.fork(fork))
        return rearrange(
            self._read(caught, resid, last, members * rows), "(row context) -> row context", row=rows
        )

    def _last_position(self, members: Sequence[int]) -> bool:
        """Whether of the last block the decision token alone is run to its end: no answer goes on after it."""
        return self.optimizations.last_position and not any(self.contexts[m].tail for m in members)

    def _read(
        self, caught: dict, resid: Tensor, last: Tensor, members: Sequence[int]
    ) -> Float[Tensor, " row"]:
        """The objective of rows whose decision token is at `last`, or is all that is there."""
        stream = resid if self.objective.needs_final else None
        return self.objective.score(
            Readout.of(self.runner, caught, stream, last, self.answers, members)
        ).float()

    # ---- batches ----------------------------------------------------------------------------------------------------

    def _child_chunks(
        self, group: PrefixGroup, length: int, positions: Tensor, rows: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """(position to start from, row indices).

        A batch has as many rows as whole prompts with their suffixes would fit, wherever they change, since
        what is left of the change is in memory too.
        """
        positions = (
            positions[rows]
            if self.optimizations.parent_kv and self.optimizations.prefix_kv
            else torch.zeros_like(rows)
        )
        size = max(1, self._rows_at_once(group, length, self.chunk.tokens) // len(group.prefixes))
        start = launch_overhead_tokens(self.runner.shape.block_parameters, self.runner.device.type) / len(
            group.prefixes
        )
        for first, last in batch_candidates(sorted(Counter(positions.tolist()).items()), length, start):
            for chunk in rows[(positions >= first) & (positions <= last)].split(size):
                yield first, chunk

    def _row_chunks(self, group: PrefixGroup, rows: int, length: int, tokens: int) -> Iterator[Tensor]:
        yield from torch.arange(rows, device=self.runner.device).split(
            self._rows_at_once(group, length, tokens)
        )

    def _rows_at_once(self, group: PrefixGroup, length: int, tokens: int) -> int:
        """Prompts that fit into `tokens` with their suffixes, after one prefix.

        Contexts are batched too: suffixes take no more than a quarter, or one suffix, so that prompts are not
        run one by one.
        """
        lead = 0 if self.optimizations.prefix_kv else group.length
        longest = max(len(self.contexts[member].after_prompt) for member in group.members)
        suffixes = longest if group.joined else min(longest * len(group.members), max(longest, tokens // 4))
        return max(1, tokens // (lead + length + suffixes))

    def _parts(self, group: PrefixGroup, members: Sequence[int], rows: int, length: int) -> list[PrefixGroup]:
        """The group on some of its contexts, cut where prompts and suffixes are run in one pass and would not fit."""
        if not members:
            return []
        some = group.part(members)
        return (
            [some.part(chunk) for chunk in self._context_chunks(some, rows, length, self.chunk.tokens)]
            if some.joined
            else [some]
        )

    def _fluent_apart(
        self, parts: list[PrefixGroup], fluent: PrefixGroup | None, children: int
    ) -> list[PrefixGroup]:
        """Contexts that measure fluency apart from the others, where running the read-out block to its end for these costs more than a run."""
        overhead = self.depth * launch_overhead_tokens(
            self.runner.shape.block_parameters, self.runner.device.type
        )
        cut: list[PrefixGroup] = []
        for part in parts:
            first = (
                0
                if fluent is None or not part.joined
                else sum(member in fluent.members for member in part.members)
            )
            others = len(part.members) - first
            apart = first and children * others > overhead and self._last_position(part.members)
            cut += (
                [part.part(part.members[:first]), part.part(part.members[first:])]
                if apart and others
                else [part]
            )
        return cut

    def _context_chunks(self, group: PrefixGroup, rows: int, length: int, tokens: int) -> list[list[int]]:
        """The group's contexts in chunks that fit into `tokens`.

        They keep their order, and are cut so that rows x contexts x what is run for each (the longest suffix,
        and the prompt where they are run in one pass) fits into `tokens`.
        """
        chunks: list[list[int]] = []
        longest, lead = 1, length if group.joined else 0
        for member in group.members:
            suffix = len(self.contexts[member].after_prompt)
            longest = max(longest, suffix)
            if not chunks or rows * (len(chunks[-1]) + 1) * (lead + longest) > tokens:
                chunks.append([])
                longest = max(1, suffix)
            chunks[-1].append(member)
        return chunks


def _split(
    group: PrefixGroup | None, members: Sequence[int]
) -> tuple[PrefixGroup | None, PrefixGroup | None]:
    """The part of a group whose contexts are among `members`, and the rest of it; a shared prompt is never parted."""
    if group is None or not group.joined:
        return group, None
    among = [member for member in group.members if member in members]
    rest = [member for member in group.members if member not in members]
    return group.part(among) if among else None, group.part(rest) if rest else None
