"""Compute the fluency of prompts: mean cross-entropy (nats per token) given the actual text on their left.

1. `prepare` runs the parents through all blocks once; their logits give log p(token | left) for the whole
   vocabulary.
2. A child's tokens left of its change have the parent's log-probabilities, and the changed token's own comes
   from the parent's logits. Both are known without running the child (`bound`).
3. The tokens after the change continue from the child's residuals at the read-out depth (`children`), for
   children that can still be selected.

In the system slot the cross-entropy does not depend on the question. In slots after the question it is the
mean over some groups of contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models import KeyValueCache
from workbench.models.runner import HALF
from workbench.search.scored_prompts import ChildProposals, Ids
from workbench.search.scoring.batch_size import LOGITS_PER_TOKEN, BatchSize
from workbench.search.scoring.log_prob_table import WHOLE, LogProbTable, TableOnRequest, WholeTable
from workbench.search.scoring.prefix_cache import PrefixCache, PrefixGroup

#: From this vocabulary size on, a product of fewer positions than `FEW_POSITIONS` with the unembedding runs below
#: half of a CPU's peak rate.
LARGE_VOCABULARY, FEW_POSITIONS = 1 << 16, 32


@dataclass(frozen=True)
class PreparedParents:
    """Parent prompts (which a search step changes), with what the scoring of their children needs.

    Children are changed copies of the parents. All means are over some questions' prefixes (the chat text
    left of the prompt).

    Attributes:
        ids: Token ids of the parents.
        cross_entropy: Mean cross-entropy of each parent, nats per token.
        log_probs: log p(token | left) for the whole vocabulary at every prompt position, mean over the
            prefixes.
        own: Cross-entropy (nats) of every token of every parent, mean over the prefixes.
        high: KV caches of the upper blocks, which the objective does not need, one per group of batched
            questions.
        given: The token ids on the CPU, if they were given there; else None.
    """

    ids: Ids
    cross_entropy: Float[Tensor, " candidate"]
    log_probs: LogProbTable
    own: Float[Tensor, "candidate prompt_pos"]
    high: list[KeyValueCache | None]
    given: Ids | None = None

    @property
    def on_host(self) -> Ids:
        """The parent prompts' token ids on the CPU."""
        return self.ids.cpu() if self.given is None else self.given

    def parent(self, row: int) -> PreparedParents:
        """Return one of the parent prompts, with its log-probabilities but without its KV caches.

        Callers compute tables over the vocabulary for one parent at a time, to save memory.

        Args:
            row: Index of the parent.
        """
        one = slice(row, row + 1)
        return PreparedParents(
            self.ids[one], self.cross_entropy[one], WholeTable(self.log_probs.parent(row)), self.own[one], []
        )


@dataclass(frozen=True)
class ResidualTail:
    """Residuals of some children (changed prompts), from which their cross-entropy is computed.

    The objective needs only the lower blocks. These residuals are taken after them, from one token position
    to the prompt's end, so that only the upper blocks must run.

    Attributes:
        number: Index of the group of batched questions, among the groups over which the cross-entropy is
            averaged.
        part: The questions of that group after whose prefixes (chat text left of the prompt) the children
            ran. Rows of `resid` are ordered by prefix.
        position: First position of the residuals in the prompt.
        rows: Indices of the children among all children of the step, on the CPU.
        resid: The residuals.
    """

    number: int
    part: PrefixGroup
    position: int
    rows: Int[Tensor, " child"]  # on the CPU
    resid: Float[Tensor, "row tail d_model"]


class PromptCrossEntropy:
    """Compute the cross-entropy of prompts and of their changed copies (children).

    It is averaged over the prefixes (the chat text left of the prompt) of some of the search's questions.

    Args:
        prefixes: The search's questions in batched groups, with the KV caches of their prefixes.
        chunk: The batch size, shared with the scorer.
    """

    def __init__(self, prefixes: PrefixCache, chunk: BatchSize) -> None:
        self.prefixes, self.runner, self.chunk = prefixes, prefixes.runner, chunk
        self._groups = [group for group in prefixes.fluent if group]

    def number(self, group: PrefixGroup) -> int:
        """Return the index of a group of questions among the groups over which cross-entropy is averaged.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
        """
        return self._groups.index(group)

    def of(self, group: PrefixGroup, ids: Ids) -> Float[Tensor, " candidate"]:
        """Return what one group of questions contributes to the mean cross-entropy of prompts.

        The mean is over the questions' prefixes (the chat text left of the prompt).

        Args:
            group: Questions that are batched, with the KV caches of their prefixes.
            ids: Token ids of prompts of equal length.

        Returns:
            Nats per token: the sum over the group's prefixes divided by the number of prefixes of all groups.
        """
        assert group.next_log_probs is not None, "only fluent groups are asked"
        top, _ = self._top(group, self.prefixes.embed(group, ids, 0))
        first = -group.next_log_probs[:, 0, ids[:, 0]].sum(0)
        later = self._cross_entropy(top[:, :-1], _to_each(group, ids[:, 1:])).sum(1)
        return (first + _over_prefixes(group, later)) / ids.shape[1] / self.prefixes.n_fluent

    def prepare(self, given: Ids) -> PreparedParents:
        """Run parent prompts (which a search step changes) through all blocks.

        The results are the parents' cross-entropy and what their children (changed copies) need for theirs.

        Args:
            given: Token ids of the parents.

        Returns:
            The parents' cross-entropy, with the log-probabilities and caches that their children need.
        """
        parents = given.to(self.runner.device)
        tops, high = [], []
        for group in self._groups:
            top, cache = self._top(group, self.prefixes.embed(group, parents, 0), keep=True)
            high.append(cache)
            tops.append(top.unflatten(0, (len(group.prefixes), -1))[:, :, :-1])
        table, own = (
            self._whole if parents.numel() * self.runner.shape.d_vocab <= WHOLE else self._on_request
        )(parents, tops)
        return PreparedParents(
            parents, own.mean(1), table, own, high, given if given.device.type == "cpu" else None
        )

    def _first(self) -> Float[Tensor, " d_vocab"]:
        """Log-probability of every first prompt token, mean over the prefixes."""
        chances = [
            group.next_log_probs.sum((0, 1)) for group in self._groups if group.next_log_probs is not None
        ]
        return torch.stack(chances).sum(0) / self.prefixes.n_fluent

    def _whole(
        self, parents: Ids, tops: list[Tensor]
    ) -> tuple[LogProbTable, Float[Tensor, "candidate prompt_pos"]]:
        """Compute the whole table of log-probabilities, and each parent token's cross-entropy."""
        table = torch.zeros(*parents.shape, self.runner.shape.d_vocab, device=self.runner.device)
        for of_prefix in (top for group in tops for top in group):
            for rows in self._logit_rows(len(parents), parents.shape[1] - 1, self.chunk.tokens):
                table[rows, 1:] += self.runner.logits(of_prefix[rows]).log_softmax(-1)
        table /= self.prefixes.n_fluent
        table[:, 0] = self._first()
        return WholeTable(table), -table.gather(-1, parents[..., None])[..., 0]

    def _on_request(
        self, parents: Ids, tops: list[Tensor]
    ) -> tuple[LogProbTable, Float[Tensor, "candidate prompt_pos"]]:
        """Like `_whole` for a large vocabulary: keep residuals and normalizers instead of the whole table."""
        first, normalizers = self._first(), []
        own = torch.zeros(parents.shape, device=self.runner.device)
        for group in tops:
            normalizers.append(torch.zeros(group.shape[:3], device=self.runner.device))
            for number, of_prefix in enumerate(group):
                normalizer, log_probs = self._normalized(of_prefix, parents[:, 1:])
                normalizers[-1][number] = normalizer
                own[:, 1:] -= log_probs
        own /= self.prefixes.n_fluent
        own[:, 0] = -first[parents[:, 0]]
        return TableOnRequest(self.runner, first, tops, normalizers), own

    def gradients(self, parents: Ids) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Return the gradient of the cross-entropy with respect to the embeddings of the parent prompts.

        Tokens count as inputs only; as predicted targets they are held fixed.

        Args:
            parents: Token ids of the prompts.
        """
        out = torch.zeros(
            *parents.shape, self.runner.shape.d_model, device=self.runner.device, dtype=torch.float32
        )
        for group in self._groups:
            out += self.gradients_in(group, parents)
        return out

    def gradients_in(self, group: PrefixGroup, parents: Ids) -> Float[Tensor, "candidate prompt_pos d_model"]:
        """Return what one group of questions contributes to the gradient of the mean cross-entropy.

        The mean is over the questions' prefixes (the chat text left of the prompt), the gradient at the
        prompts' embeddings.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes.
            parents: Token ids of prompts of equal length.
        """
        out = torch.zeros(
            *parents.shape, self.runner.shape.d_model, device=self.runner.device, dtype=torch.float32
        )
        of_row = parents.shape[1] + (0 if self.prefixes.cached else group.length)
        at_once = max(1, self.chunk.gradient_tokens // of_row)
        for start in range(0, len(group.prefixes), at_once):
            part = group.part(group.members[start : start + at_once]) if group.joined else group
            for rows in torch.arange(len(parents), device=self.runner.device).split(
                max(1, at_once // len(part.prefixes))
            ):
                embedded = self.prefixes.leaf(part, parents[rows])
                top, _ = self._top(part, self.prefixes.lead(part, embedded))
                slope = torch.autograd.grad(top, embedded, self.top_slopes(part, top, parents[rows]))[0]
                out[rows] += _over_prefixes(part, slope.float())
        return out

    def top_slopes(
        self, part: PrefixGroup, top: Float[Tensor, "row prompt_pos d_model"], parents: Ids
    ) -> Float[Tensor, "row prompt_pos d_model"]:
        """Return the gradient of the cross-entropy with respect to the residuals after the last block.

        Logits are computed and differentiated for a few rows at a time, so that the autograd graphs of all
        rows are never in memory together.

        Args:
            part: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
            top: Residuals after the last block, one row per prefix and prompt, ordered by prefix.
            parents: Token ids of the prompts.
        """
        slopes, targets, length = torch.zeros_like(top), _to_each(part, parents[:, 1:]), parents.shape[1]
        for rows in self._slope_rows(len(top), length):
            leaf = top[rows, :-1].detach().requires_grad_(True)
            with torch.enable_grad():
                loss = self._cross_entropy(leaf, targets[rows]).sum() / length / self.prefixes.n_fluent
            if length > 1:
                slopes[rows, :-1] = torch.autograd.grad(loss, leaf)[0]
        return slopes

    def bound(self, prepared: PreparedParents, children: ChildProposals) -> Float[Tensor, " candidate"]:
        """Return a lower bound of each child's cross-entropy, nats per token, without running the model.

        A child is a changed copy of a parent prompt. The cross-entropies of its tokens up to the first
        changed one are known from the parent; all later tokens count as certain (0 nats).

        Args:
            prepared: The parents with their log-probabilities.
            children: The children with the rows of their parents.
        """
        return self._known(prepared, children) / children.ids.shape[1]

    def children(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        tails: list[ResidualTail],
        wanted: Bool[Tensor, " candidate"],
    ) -> Float[Tensor, " candidate"]:
        """Compute the cross-entropy of some children (changed copies) of the parent prompts.

        Args:
            prepared: The parents with their log-probabilities and KV caches.
            children: All children of the step, with the rows of their parents.
            tails: The children's residuals after the lower blocks (those that the objective needs).
            wanted: Mask, on the CPU, of the children whose cross-entropy is computed.

        Returns:
            Nats per token; +inf for the other children.
        """
        totals = self._known(prepared, children)
        for tail in tails:
            keep = wanted[tail.rows].nonzero()[:, 0]
            if len(keep) == 0:
                continue
            rows, resid = tail.rows[keep].to(totals.device), tail.resid
            if len(keep) < len(tail.rows):
                resid = resid.unflatten(0, (len(tail.part.prefixes), -1))[:, keep.to(resid.device)].flatten(
                    0, 1
                )
            totals[rows] += self._later_tokens(prepared, children, tail, rows, resid) / self.prefixes.n_fluent
        return (totals / children.ids.shape[1]).masked_fill(~wanted.to(totals.device), torch.inf)

    def _top(
        self, group: PrefixGroup, embedded: Tensor, keep: bool = False
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Run prompts to the last block after each prefix.

        Returns:
            Residuals at the prompts' own positions, and the cache of the blocks above the read-out depth.
        """
        rows = len(embedded) // len(group.prefixes)
        resid, _ = self.runner.run(embedded, 0, self.prefixes.depth, self.prefixes.fork(group.low, rows))
        top, cache = self.prefixes.to_top(resid, self.prefixes.fork(group.high, rows), keep)
        return self.prefixes.own(group, top), cache

    def _known(self, prepared: PreparedParents, children: ChildProposals) -> Float[Tensor, " candidate"]:
        """Summed cross-entropy of a child's tokens up to its first changed one, mean over the prefixes."""
        rows = torch.arange(len(children), device=self.runner.device)
        left = torch.cat([prepared.own.new_zeros(len(prepared.ids), 1), prepared.own.cumsum(1)], dim=1)
        changed = prepared.log_probs.tokens(
            children.parent, children.position, children.ids[rows, children.position]
        )
        return left[children.parent, children.position] - changed

    def _later_tokens(
        self,
        prepared: PreparedParents,
        children: ChildProposals,
        tail: ResidualTail,
        rows: Tensor,
        resid: Tensor,
    ) -> Float[Tensor, " row"]:
        """Summed cross-entropy of the tokens after the changed one, from residuals at the read-out depth."""
        group, part, cache = self._groups[tail.number], tail.part, prepared.high[tail.number]
        if cache is not None and len(part.members) < len(group.members) and group.joined:
            at = [group.members.index(member) for member in part.members]
            cache = cache.pick(at, group.length - part.length)
        high = self.prefixes.left_of(part.high, part, cache, children.parent[rows], tail.position)
        top = self.prefixes.own(part, self.prefixes.to_top(resid, high)[0])
        entropies = self._cross_entropy(top[:, :-1], _to_each(part, children.ids[rows, tail.position + 1 :]))
        later = (
            torch.arange(tail.position + 1, children.ids.shape[1], device=rows.device)[None]
            > children.position[rows][:, None]
        )
        return (_over_prefixes(part, entropies) * later).sum(1)

    def _cross_entropy(
        self, top: Float[Tensor, "row pos d_model"], targets: Int[Tensor, "row pos"]
    ) -> Float[Tensor, "row pos"]:
        """Negative log-probability of each target; rows are batched so that the logits stay small."""
        if targets.shape[1] == 0:
            return top.new_zeros(targets.shape, dtype=torch.float32)
        return -self._normalized(top, targets)[1]

    def _normalized(
        self, top: Float[Tensor, "row pos d_model"], targets: Int[Tensor, "row pos"]
    ) -> tuple[Float[Tensor, "row pos"], Float[Tensor, "row pos"]]:
        """log(sum(exp(logits))) at each position, and the log-probability of each target."""
        if self._in_chunks(targets.shape[1], self.chunk.tokens):
            flat = top.flatten(0, 1)
            whole = self.runner.log_normalizer(flat)
            own = self.runner.logits_of(flat, targets.flatten()[:, None])[:, 0]
            return whole.view(targets.shape), (own - whole).view(targets.shape)
        wholes, log_probs = [], []
        for rows in self._logit_rows(len(targets), targets.shape[1], self.chunk.tokens):
            logits = self.runner.logits(top[rows])
            wholes.append(logits.logsumexp(-1))
            log_probs.append(logits.gather(-1, targets[rows][..., None])[..., 0] - wholes[-1])
        return torch.cat(wholes), torch.cat(log_probs)

    def _in_chunks(self, positions: int, tokens: int) -> bool:
        """Whether logits are computed by chunks of the vocabulary for all rows, not for a few rows at a time.

        So they are for a large vocabulary: products of few rows with a large matrix are slow. In a shorter
        dtype than float32 they are not, as chunks are computed in float32.
        """
        if self.runner.shape.d_vocab < LARGE_VOCABULARY or self.runner.dtype in HALF:
            return False
        rows = max(1, LOGITS_PER_TOKEN * tokens // (max(1, positions) * self.runner.shape.d_vocab))
        return rows * positions < FEW_POSITIONS

    def _slope_rows(self, rows: int, positions: int) -> Iterator[slice]:
        """Split rows into slices whose logits are differentiated at a time; all at once if that takes no memory."""
        if self._in_chunks(positions, self.chunk.gradient_tokens):
            return iter([slice(0, rows)])
        return self._logit_rows(rows, positions, self.chunk.gradient_tokens)

    def _logit_rows(self, rows: int, positions: int, tokens: int) -> Iterator[slice]:
        """Split rows into slices whose logits are not more numbers than a batch of `tokens` tokens allows."""
        size = max(1, LOGITS_PER_TOKEN * tokens // (max(1, positions) * self.runner.shape.d_vocab))
        return (slice(start, start + size) for start in range(0, rows, size))


def _to_each(group: PrefixGroup, ids: Ids) -> Ids:
    """Repeat the ids for each prefix, ordered by prefix."""
    return ids.repeat(len(group.prefixes), 1)


def _over_prefixes(group: PrefixGroup, values: Tensor) -> Tensor:
    """Sum values, which are ordered by prefix, over the prefixes."""
    return rearrange(values, "(prefix row) ... -> prefix row ...", prefix=len(group.prefixes)).sum(0)
