"""Scores of many prompts on many contexts: every saving here is exact (it changes no score beyond rounding).

For prompts of n tokens, contexts with q tokens left of the slot and t right of it, an objective that needs L of the blocks:

1. Contexts with the same ids left of the slot form a *group*; the prefix is run once a group, its keys and values kept.
2. A parent prompt is run behind the prefix. A child that differs from it from position p on reuses the parent's keys and
   values left of p: only n - p tokens are run. No published code does this.
3. In a group of several contexts (system slot) the prompt's cache is forked to them: only t tokens a context are run.
   In a group of one (prompt behind the question) prompt and suffix are run together.
4. Nothing above block L is run for the objective, and no logits are made unless the objective needs them.
5. Fluency continues from the residual at L, and only for children that can still win; tokens left of p have the parent's
   log-probabilities, and the token at p has its own from the parent's logits: both are known without running the child.
6. Gradients are taken at the embeddings' output, at the model's own scale (no one-hot matrix).

Cost model: see docs/performance.md. Objective scores are means over the same contexts for every prompt, always: no score
is luckier than another. Fluency is the mean cross-entropy (nats a token) of the prompt's tokens given what stands to
their left, averaged over `fluency_groups` groups (one in the system slot, where it does not depend on the question).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.contexts import Context, Contexts
from workbench.errors import UserError
from workbench.models import KV, Runner, pad_right
from workbench.objectives import Objective, Readout

Ids = Int[Tensor, "candidate prompt_pos"]
Advantage = Callable[["Scored", Float[Tensor, " candidate"], Float[Tensor, " candidate"]], Float[Tensor, " candidate"]]


@dataclass(frozen=True)
class Savings:
    """Which exact savings are used; all by default. `halving`: share of the contexts on which all children are scored before
    the worse half is dropped (0: off; an approximation in who survives, never in a survivor's score)."""

    prefix_kv: bool = True
    shared_prompt: bool = True
    parent_kv: bool = True
    lazy_fluency: bool = True
    halving: float = 0.0


@dataclass(frozen=True)
class Scored:
    """Prompts of equal length with their scores. objective: as maximised, -inf where it was dropped on the way; fluency:
    nats a token (lower is better), +inf where it was not needed because the prompt cannot win."""

    ids: Ids
    objective: Float[Tensor, " candidate"]
    fluency: Float[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)

    def pick(self, index: Tensor) -> Scored:
        return Scored(self.ids[index], self.objective[index], self.fluency[index])

    def join(self, other: Scored) -> Scored:
        return Scored(*(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("ids", "objective", "fluency")))


@dataclass(frozen=True)
class Proposals:
    """Children: whole ids, the row of their parent, and the first position at which they differ from it."""

    ids: Ids
    parent: Int[Tensor, " candidate"]
    position: Int[Tensor, " candidate"]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class _Group:
    """Contexts (by index) that share what stands left of the slot, with its cache below and above the read-out depth."""

    prefix: tuple[int, ...]
    members: list[int]
    low: KV | None = None
    high: KV | None = None
    next_log_probs: Tensor | None = None


@dataclass(frozen=True)
class Prepared:
    """Parents, run once to the end in the fluency groups.

    log_probs: log p(token | left) for the whole vocabulary at every prompt position, mean over the groups.
    own: cross-entropy of every token of every parent, by group. high: caches above the read-out depth, by group.
    """

    ids: Ids
    fluency: Float[Tensor, " candidate"]
    log_probs: Float[Tensor, "candidate prompt_pos d_vocab"]
    own: list[Float[Tensor, "candidate prompt_pos"]]
    by_group: list[Float[Tensor, "candidate prompt_pos d_vocab"]]
    high: list[KV | None]


@dataclass(frozen=True)
class _Tail:
    """Residuals at the read-out depth of some children, from their first changed position on, in one fluency group."""

    group: int
    position: int
    rows: Int[Tensor, " row"]
    resid: Float[Tensor, "row tail d_model"]


class Scorer:
    """Scores prompts for one objective on fixed contexts. batch_tokens: tokens that are run at a time."""

    def __init__(
        self,
        runner: Runner,
        objective: Objective,
        contexts: Contexts,
        savings: Savings | None = None,
        batch_tokens: int = 8192,
        fluency_groups: int = 4,
    ) -> None:
        self.runner, self.objective, self.contexts = runner, objective, contexts
        self.savings = savings or Savings()
        self.batch_tokens = batch_tokens
        self.depth = max(1, objective.depth(runner.shape.n_layers))
        self.answers = torch.tensor([[c.answers[0][0], c.answers[1][0]] for c in contexts], device=runner.device)
        self.groups = self._make_groups()
        self.first_round = self._first_round()
        self.fluency_groups = range(min(fluency_groups, len(self.groups), self.first_round))
        with torch.no_grad():
            for number, group in enumerate(self.groups):
                self._run_prefix(group, number in self.fluency_groups)

    # ---- public -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, ids: Ids) -> Scored:
        """Objective (mean over all contexts) and fluency of any prompts of equal length, in full."""
        objective = torch.zeros(len(ids), device=self.runner.device)
        for rows in self._row_chunks(len(ids), ids.shape[1]):
            for group in self.groups:
                scores, _, _ = self._forward(group, self._embed(group, ids[rows], 0), 0, self._fork(group.low, len(rows)), group.members)
                objective[rows] += scores.sum(1) / len(self.contexts)
        return Scored(ids, objective + self.objective.prompt_score(ids), self.prepare(ids, everything=False).fluency)

    @torch.no_grad()
    def prepare(self, parents: Ids, everything: bool = True) -> Prepared:
        """Fluency of parents; with `everything` also what children will need: log-probabilities and caches."""
        own, by_group, high = [], [], []
        for number in self.fluency_groups:
            group = self.groups[number]
            resid, _ = self._prompt_resid(group, parents)
            top, cache = self._to_top(resid, group.high, keep=everything)
            top = self._own(group, top)
            first = group.next_log_probs.expand(len(parents), 1, -1)
            if everything:
                log_probs = torch.cat([first, self.runner.logits(top[:, :-1]).log_softmax(-1)], dim=1)
                own.append(-log_probs.gather(-1, parents[..., None])[..., 0])
                by_group.append(log_probs)
                high.append(cache)
            else:
                rest = self._cross_entropy(top[:, :-1], parents[:, 1:])
                own.append(torch.cat([-first[:, 0].gather(-1, parents[:, :1]), rest], dim=1))
        fluency = torch.stack(own).mean((0, 2))
        mean = torch.stack(by_group).mean(0) if len(by_group) > 1 else (by_group[0] if by_group else torch.empty(0))
        return Prepared(parents, fluency, mean, own, by_group, high)

    def gradients(self, parents: Ids, n_contexts: int | None = None, first: int = 0) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Gradient of the mean objective with respect to the prompt's embeddings (model's own scale), over n contexts counted
        from `first` round the list (all when None)."""
        total = len(self.contexts)
        active = {(first + i) % total for i in range(min(n_contexts or total, total))}
        out = torch.zeros(*parents.shape, self.runner.shape.d_model, device=self.runner.device, dtype=torch.float32)
        for rows in self._row_chunks(len(parents), parents.shape[1], share=4):
            for group in self.groups:
                members = [m for m in group.members if m in active]
                if members:
                    out[rows] += self._group_gradient(group, parents[rows], members) / len(active)
        return out

    def fluency_gradients(self, parents: Ids) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Gradient of the fluency (mean cross-entropy) with respect to the prompt's embeddings, tokens as targets held fixed."""
        out = torch.zeros(*parents.shape, self.runner.shape.d_model, device=self.runner.device, dtype=torch.float32)
        if parents.shape[1] < 2:
            return out
        for number in self.fluency_groups:
            group = self.groups[number]
            embedded = self._leaf(parents, group)
            top = self._own(group, self._to_top(self._prompt_resid(group, parents, embedded)[0], group.high)[0])
            loss = self._cross_entropy(top[:, :-1], parents[:, 1:]).sum() / parents.shape[1] / len(self.fluency_groups)
            out += torch.autograd.grad(loss, embedded)[0].float()
        return out

    @torch.no_grad()
    def score_children(self, prepared: Prepared, children: Proposals, advantage: Advantage | None = None) -> tuple[Scored, Scored]:
        """(parents, children) on the same contexts in the same pass.

        advantage(parents scored, objectives, lower bounds of fluency) -> Float[candidate]: how far a child is from being of
        use; below 0 it cannot be, and gets no fluency (+inf). With halving, the half with the least advantage after the first
        contexts is dropped (objective -inf).
        """
        parent_sum, child_sum, tails, dropped = self._objective_sums(prepared, children, advantage)
        parents = Scored(prepared.ids, parent_sum / len(self.contexts) + self.objective.prompt_score(prepared.ids), prepared.fluency)
        objective = child_sum / len(self.contexts) + self.objective.prompt_score(children.ids)
        objective = objective.masked_fill(dropped, -torch.inf)
        wanted = ~dropped
        if advantage is not None and self.savings.lazy_fluency:
            wanted &= advantage(parents, objective, self.fluency_bound(prepared, children)) >= 0
        return parents, Scored(children.ids, objective, self._child_fluency(prepared, children, tails, wanted))

    def fluency_bound(self, prepared: Prepared, children: Proposals) -> Float[Tensor, " candidate"]:
        """The least fluency that a child can have: its known tokens' cross-entropy over n, the others counted as certain."""
        known = [self._known(prepared, k, children) for k in range(len(prepared.own))]
        return torch.stack(known).mean(0) / children.ids.shape[1]

    # ---- objective --------------------------------------------------------------------------------------------------

    def _first_round(self) -> int:
        """How many contexts all children are scored on before halving; all of them without it."""
        total, halving = len(self.contexts), self.savings.halving
        return max(1, round(total * halving)) if 0 < halving < 1 else total

    def _objective_sums(
        self, prepared: Prepared, children: Proposals, advantage: Advantage | None
    ) -> tuple[Tensor, Tensor, list[_Tail], Bool[Tensor, " candidate"]]:
        """Sums over contexts for parents and children; with halving in two rounds of contexts."""
        total, first = len(self.contexts), self.first_round
        everyone = torch.arange(len(children), device=self.runner.device)
        parent_sum, child_sum, tails = self._round(prepared.ids, children, everyone, set(range(first)), True)
        dropped = torch.zeros(len(children), dtype=torch.bool, device=self.runner.device)
        if first < total:
            parents = Scored(prepared.ids, parent_sum / first, prepared.fluency)
            bound = self.fluency_bound(prepared, children)
            rank = child_sum / first if advantage is None else advantage(parents, child_sum / first, bound)
            rest = rank.argsort(descending=True, stable=True)[: max(1, len(rank) // 2)].sort().values
            dropped = dropped.index_fill(0, rest, True).logical_not()
            more_parent, more_child, _ = self._round(prepared.ids, children, rest, set(range(first, total)), False)
            parent_sum, child_sum = parent_sum + more_parent, child_sum + more_child
        return parent_sum, child_sum, tails, dropped

    def _round(
        self, parents: Ids, children: Proposals, rows: Tensor, active: set[int], want_tails: bool
    ) -> tuple[Float[Tensor, " parent"], Float[Tensor, " candidate"], list[_Tail]]:
        """Parents and the chosen children on some contexts, group by group, children of one changed position together."""
        parent_sum = torch.zeros(len(parents), device=self.runner.device)
        child_sum = torch.zeros(len(children), device=self.runner.device)
        tails: list[_Tail] = []
        for number, group in enumerate(self.groups):
            members = [m for m in group.members if m in active]
            if not members:
                continue
            scores, _, cache = self._forward(group, self._embed(group, parents, 0), 0, self._fork(group.low, len(parents)), members, keep=True)
            parent_sum += scores.sum(1)
            for position, chunk in self._child_chunks(children, rows, len(members)):
                kv = self._parent_cache(group, cache, children.parent[chunk], position)
                embedded = self._embed(group, children.ids[chunk, position:], position)
                scores, resid, _ = self._forward(group, embedded, position, kv, members)
                child_sum[chunk] += scores.sum(1)
                if want_tails and number in self.fluency_groups:
                    tails.append(_Tail(number, position, chunk, resid))
        return parent_sum, child_sum, tails

    def _child_chunks(self, children: Proposals, rows: Tensor, n_contexts: int) -> Iterator[tuple[int, Tensor]]:
        """(position, row indices) such that the rows of a chunk fit into batch_tokens."""
        length = children.ids.shape[1]
        positions = children.position[rows] if self.savings.parent_kv and self.savings.prefix_kv else torch.zeros_like(rows)
        for position in sorted(set(positions.tolist())):
            mine = rows[positions == position]
            size = max(1, self.batch_tokens // (length - position + self._suffix_tokens(n_contexts)))
            for start in range(0, len(mine), size):
                yield position, mine[start : start + size]

    def _suffix_tokens(self, n_contexts: int) -> int:
        """Tokens a prompt adds behind itself in one batch: contexts are chunked too, so never more than a quarter of it."""
        longest = max(len(c.suffix_ids) for c in self.contexts)
        return min(longest * n_contexts, max(longest, self.batch_tokens // 4))

    def _forward(
        self, group: _Group, embedded: Tensor, position: int, kv: KV | None, members: Sequence[int], keep: bool = False
    ) -> tuple[Float[Tensor, "row context"], Float[Tensor, "row tail d_model"], KV | None]:
        """Objective of rows on the group's contexts, the prompt's residuals at the read-out depth, and the prompt's cache."""
        if len(group.members) == 1:
            return self._forward_one(group, embedded, position, kv, members[0], keep)
        resid, cache = self.runner.run(embedded, 0, self.depth, kv, keep=True)
        chunks = self._context_chunks(members, len(embedded))
        return torch.cat([self._suffixes(cache, chunk, len(embedded)) for chunk in chunks], dim=1), resid, cache

    def _forward_one(
        self, group: _Group, embedded: Tensor, position: int, kv: KV | None, member: int, keep: bool
    ) -> tuple[Tensor, Tensor, KV | None]:
        """A group of one context: prompt and suffix in one run."""
        suffix = self._suffix_embedding([self.contexts[member]], len(embedded), embedded, position, group)
        with self._capturing() as caught:
            resid, cache = self.runner.run(torch.cat([embedded, suffix], dim=1), 0, self.depth, kv, keep=keep)
        last = torch.full((len(embedded),), resid.shape[1] - 1, device=resid.device)
        scores = self._read(caught, resid, last, [member] * len(embedded))
        return scores[:, None], resid[:, : embedded.shape[1]], cache

    def _suffixes(self, cache: KV, members: list[int], rows: int) -> Float[Tensor, "row context"]:
        """The suffixes of some contexts behind each of the rows' caches."""
        contexts = [self.contexts[m] for m in members]
        offset = cache.length
        ids = pad_right([c.suffix_ids for c in contexts]).to(self.runner.device)
        embedded = self.runner.embed(ids, offset).repeat(rows, 1, 1)
        fork = torch.arange(rows, device=self.runner.device).repeat_interleave(len(members))
        with self._capturing() as caught:
            resid, _ = self.runner.run(embedded, 0, self.depth, cache.fork(fork))
        last = torch.tensor([len(c.suffix_ids) - 1 for c in contexts], device=self.runner.device).repeat(rows)
        return self._read(caught, resid, last, members * rows).view(rows, len(members))

    def _read(self, caught: dict, resid: Tensor, last: Tensor, members: Sequence[int]) -> Float[Tensor, " row"]:
        rows = torch.arange(len(resid), device=resid.device)
        read = {site: activation[rows, last].float() for site, activation in caught.items()}
        final = resid[rows, last] if self.objective.needs_final else None
        scores = self.objective.score(Readout(read, final, self.answers[list(members)], self.runner)).float()
        if not torch.isfinite(scores).all():
            raise UserError(f"the model gave a score that is no number (blocks 0-{self.depth - 1}): check its dtype and weights")
        return scores

    def _capturing(self):
        return self.runner.capture(self.objective.sites)

    def _group_gradient(self, group: _Group, parents: Ids, members: list[int]) -> Float[Tensor, "candidate prompt_pos d_model"]:
        embedded = self._leaf(parents, group)
        scores, _, _ = self._forward(group, self._lead(group, embedded), 0, self._fork(group.low, len(parents)), members)
        return torch.autograd.grad(scores.sum(), embedded)[0].float()

    # ---- fluency ----------------------------------------------------------------------------------------------------

    def _known(self, prepared: Prepared, k: int, children: Proposals) -> Float[Tensor, " candidate"]:
        """Cross-entropy (sum) of a child's tokens up to and with its first changed one, in fluency group k."""
        rows = torch.arange(len(children), device=self.runner.device)
        left = torch.cat([prepared.own[k].new_zeros(len(prepared.ids), 1), prepared.own[k].cumsum(1)], dim=1)
        changed = prepared.by_group[k][children.parent, children.position, children.ids[rows, children.position]]
        return left[children.parent, children.position] - changed

    def _child_fluency(self, prepared: Prepared, children: Proposals, tails: list[_Tail], wanted: Tensor) -> Float[Tensor, " candidate"]:
        """Mean cross-entropy of the wanted children; +inf for the others."""
        length = children.ids.shape[1]
        totals = torch.stack([self._known(prepared, k, children) for k in range(len(prepared.own))])
        for tail in tails:
            k = list(self.fluency_groups).index(tail.group)
            keep = wanted[tail.rows]
            rows, resid = tail.rows[keep], tail.resid[keep]
            if len(rows):
                totals[k, rows] += self._tail_cross_entropy(prepared, k, children, tail, rows, resid)
        fluency = totals.mean(0) / length
        return fluency.masked_fill(~wanted, torch.inf)

    def _tail_cross_entropy(self, prepared: Prepared, k: int, children: Proposals, tail: _Tail, rows: Tensor, resid: Tensor) -> Tensor:
        """Cross-entropy (sum) of the tokens behind the changed one, from the residuals at the read-out depth."""
        group = self.groups[tail.group]
        full = tail.position == 0 or not self.savings.prefix_kv
        high = self._fork(group.high, len(rows)) if full else _crop(_fork(prepared.high[k], children.parent[rows]), len(group.prefix) + tail.position)
        top = self._own(group, self._to_top(resid, high, forked=True)[0])
        targets = children.ids[rows, tail.position + 1 :]
        entropies = self._cross_entropy(top[:, :-1], targets)
        behind = torch.arange(tail.position + 1, children.ids.shape[1], device=rows.device)[None] > children.position[rows][:, None]
        return (entropies * behind).sum(1)

    def _cross_entropy(self, top: Float[Tensor, "row pos d_model"], targets: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos"]:
        """Negative log-probability of each target; rows are chunked so that the logits stay small."""
        if targets.shape[1] == 0:
            return top.new_zeros(targets.shape, dtype=torch.float32)
        size = max(1, 2**26 // (targets.shape[1] * self.runner.shape.d_vocab))
        parts = []
        for start in range(0, len(top), size):
            logits = self.runner.logits(top[start : start + size])
            parts.append(logits.logsumexp(-1) - logits.gather(-1, targets[start : start + size, :, None])[..., 0])
        return torch.cat(parts)

    def _to_top(self, resid: Tensor, high: KV | None, keep: bool = False, forked: bool = False) -> tuple[Tensor, KV | None]:
        """From the read-out depth to the end, behind the prefix (no prefix cache: its residuals are in `resid`)."""
        n_layers = self.runner.shape.n_layers
        if self.depth == n_layers:
            return resid, None
        kv = high if forked else self._fork(high, len(resid))
        return self.runner.run(resid, self.depth, n_layers, kv, keep=keep)

    # ---- prefixes, caches, chunks -----------------------------------------------------------------------------------

    def _make_groups(self) -> list[_Group]:
        groups: dict[object, _Group] = {}
        for index, context in enumerate(self.contexts):
            key = context.prefix_ids if self.savings.shared_prompt and context.suffix_ids else index
            groups.setdefault(key, _Group(context.prefix_ids, [])).members.append(index)
        return list(groups.values())

    def _run_prefix(self, group: _Group, fluency: bool) -> None:
        """Keys and values of the prefix, below the read-out depth and (for fluency) above it, and log p(first prompt token)."""
        ids = torch.tensor([group.prefix], device=self.runner.device)
        resid, low = self.runner.run(self.runner.embed(ids), 0, self.depth, keep=True)
        group.low = low if self.savings.prefix_kv else None
        if fluency:
            top, high = self._to_top(resid, None, keep=True)
            group.high = high if self.savings.prefix_kv else None
            group.next_log_probs = self.runner.logits(top[:, -1:]).log_softmax(-1)

    def _fork(self, kv: KV | None, rows: int) -> KV | None:
        return None if kv is None else kv.fork(torch.zeros(rows, dtype=torch.long, device=self.runner.device))

    def _parent_cache(self, group: _Group, cache: KV | None, parent: Tensor, position: int) -> KV | None:
        """What stands left of the changed position: prefix and the parent's tokens."""
        if position == 0 or not self.savings.prefix_kv:
            return self._fork(group.low, len(parent))
        return cache.fork(parent).crop(len(group.prefix) + position)

    def _embed(self, group: _Group, ids: Ids, position: int) -> Tensor:
        """Embedded prompt tokens at their places; without prefix caches the prefix is embedded with them."""
        return self._lead(group, self.runner.embed(ids, len(group.prefix) + position))

    def _lead(self, group: _Group, embedded: Tensor) -> Tensor:
        if self.savings.prefix_kv:
            return embedded
        prefix = torch.tensor([group.prefix], device=self.runner.device).expand(len(embedded), -1)
        return torch.cat([self.runner.embed(prefix), embedded], dim=1)

    def _leaf(self, parents: Ids, group: _Group) -> Tensor:
        return self.runner.embed(parents, len(group.prefix)).detach().requires_grad_(True)

    def _own(self, group: _Group, top: Tensor) -> Tensor:
        """The prompt's own positions (without prefix caches the prefix was run with them)."""
        return top if self.savings.prefix_kv else top[:, len(group.prefix) :]

    def _prompt_resid(self, group: _Group, ids: Ids, embedded: Tensor | None = None) -> tuple[Tensor, KV | None]:
        """Residuals of prompts at the read-out depth, behind the prefix."""
        start = self._embed(group, ids, 0) if embedded is None else self._lead(group, embedded)
        return self.runner.run(start, 0, self.depth, self._fork(group.low, len(ids)))

    def _suffix_embedding(self, contexts: list[Context], rows: int, embedded: Tensor, position: int, group: _Group) -> Tensor:
        lead = 0 if self.savings.prefix_kv else -len(group.prefix)
        offset = len(group.prefix) + position + embedded.shape[1] + lead
        ids = torch.tensor([contexts[0].suffix_ids], dtype=torch.long, device=self.runner.device).reshape(1, -1)
        return self.runner.embed(ids, offset).expand(rows, -1, -1)

    def _row_chunks(self, rows: int, length: int, share: int = 1) -> Iterator[Tensor]:
        widest = max(len(g.members) for g in self.groups)
        lead = 0 if self.savings.prefix_kv else max(len(g.prefix) for g in self.groups)
        size = max(1, self.batch_tokens // share // (length + lead + self._suffix_tokens(widest)))
        for start in range(0, rows, size):
            yield torch.arange(start, min(start + size, rows), device=self.runner.device)

    def _context_chunks(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """Contexts in their order, cut so that rows x contexts x longest suffix fits into batch_tokens."""
        chunks: list[list[int]] = [[]]
        longest = 1
        for member in members:
            longest = max(longest, len(self.contexts[member].suffix_ids))
            if chunks[-1] and rows * (len(chunks[-1]) + 1) * longest > self.batch_tokens:
                chunks.append([])
                longest = len(self.contexts[member].suffix_ids)
            chunks[-1].append(member)
        return chunks


def _fork(kv: KV | None, index: Tensor) -> KV | None:
    return None if kv is None else kv.fork(index)


def _crop(kv: KV | None, length: int) -> KV | None:
    return None if kv is None else kv.crop(length)
