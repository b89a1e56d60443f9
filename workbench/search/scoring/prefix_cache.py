"""Cache the text left of the prompt: it runs once, and prompts and children fork its keys and values.

1. Contexts with the same ids left of the slot form one `PrefixGroup` with one prefix.
2. A prefix runs once: keys and values below the read-out depth are for the objective, those above for
   fluency.
3. Contexts with their own prefixes (prompt after the question) are batched into groups of many prefixes, so
   that one run of the blocks serves them all. They are ordered by the prefixes' lengths, because shorter ones
   are padded.
4. Every prompt forks its prefix's cache; a child forks its parent's, cropped to the tokens that both share.

Rows of a group with several prefixes are ordered by prefix. Without `Optimizations.prefix_kv` nothing is
cached, and the prefix runs again before every prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.contexts import Contexts
from workbench.models import KeyValueCache, Runner, Site, pad_right
from workbench.search.nan_check import check_prefix
from workbench.search.scored_prompts import Ids


@dataclass(frozen=True)
class Optimizations:
    """Which optimizations a search uses. Each except `halving` is exact: it changes no score beyond rounding.

    Attributes:
        prefix_kv: Cache the keys and values of the chat text left of the prompt.
        shared_prompt: Run a prompt once for all questions with the same text left of it, and fork its KV
            cache.
        parent_kv: Score a changed prompt from its first changed token on, with the original prompt's KV
            cache.
        deferred_cross_entropy: Compute the cross-entropy only of prompts that can still be selected (a GPU
            computes it for all prompts, but reports it for these only).
        last_position: Run the last block at the decision token (the last one before the answer) only.
        batched_caches: Run questions with different text left of the prompt as one batch, padded on the left.
        halving: Fraction of the questions on which all changed prompts are scored first (successive halving).
            The better half is scored on as many questions again, and so on (0: off). This approximates which
            prompts are selected; the score of a selected prompt is always over all questions.

    Example:
        >>> wb.Optimizations(halving=0.25).prefix_kv
        True
    """

    prefix_kv: bool = True
    shared_prompt: bool = True
    parent_kv: bool = True
    deferred_cross_entropy: bool = True
    last_position: bool = True
    batched_caches: bool = True
    halving: float = 0.0


#: A batch's longest prefix and suffix are at most this many times its shortest (or a few tokens longer).
STRETCH, FEW = 1.25, (8, 1)


@dataclass(frozen=True, eq=False)
class PrefixGroup:
    """Questions that run in one batch, with the KV caches of their prefixes (the text left of the prompt).

    Attributes:
        prefixes: Token ids of the one prefix that all questions share, or of one prefix per question.
        members: Indices of the questions.
        joined: True if every question has its own prefix; prompt and suffix (the text after the prompt) then
            run in one pass. False if the prefix is shared; the prompt then runs once, and each question
            continues its KV cache.
        low: KV cache of the prefixes in the blocks that the objective needs.
        high: KV cache of the prefixes in the blocks above those; None if the group is not used for the
            prompts' cross-entropy.
        next_log_probs: log p of every token as the first one after each prefix; None if the group is not used
            for the prompts' cross-entropy.
    """

    prefixes: tuple[tuple[int, ...], ...]
    members: list[int]
    joined: bool
    low: KeyValueCache | None = None
    high: KeyValueCache | None = None
    next_log_probs: Float[Tensor, "prefix 1 d_vocab"] | None = None

    @property
    def length(self) -> int:
        """Number of positions left of the prompt, padding included."""
        return max(map(len, self.prefixes))

    def part(self, members: Sequence[int]) -> PrefixGroup:
        """Return the group with only some of its questions and the KV caches that they need.

        Args:
            members: Indices of the questions to keep.
        """
        if not self.joined or len(members) == len(self.members):
            return replace(self, members=list(members))
        at = [self.members.index(member) for member in members]
        prefixes = tuple(self.prefixes[i] for i in at)
        longest = max(map(len, prefixes))
        low, high = (None if kv is None else kv.pick(at, kv.length - longest) for kv in (self.low, self.high))
        chances = None if self.next_log_probs is None else self.next_log_probs[at]
        return PrefixGroup(prefixes, list(members), True, low, high, chances)


class PrefixCache:
    """Questions in groups that are batched, with the KV caches of their prefixes.

    A prefix is the chat text left of the prompt. The caches are separate for the first `depth` blocks, which
    the objective needs, and for the blocks above them.

    Attributes:
        groups: The groups; together they have all questions.
        fluent: For each group, those of its questions that are used for the prompts' cross-entropy; None if
            there are none.
        n_fluent: Number of prefixes over which the cross-entropy is averaged.
        rounds: Indices of the questions of each round of successive halving; one round of all questions
            without halving.
    """

    def __init__(
        self,
        runner: Runner,
        contexts: Contexts,
        depth: int,
        optimizations: Optimizations,
        fluent: int,
        sites: Sequence[Site] = (),
    ) -> None:
        self.runner, self.contexts, self.depth, self.optimizations = runner, contexts, depth, optimizations
        self.cached = optimizations.prefix_kv
        alone = _grouped(contexts, optimizations.shared_prompt)
        #: Contexts of each round: all at once, or with successive halving a fraction, then as many again, and
        #: so on. The first round has every prefix over which the cross-entropy is averaged, which is computed
        #: in it.
        least = max(min(group.members) for group in alone[:fluent]) + 1
        self.rounds = _rounds(len(contexts), optimizations.halving, least, contexts[0].n_branches)
        with torch.no_grad():
            made = [self._run(group, number < fluent) for number, group in enumerate(alone)]
            with runner.capture(sites):  # hooks inside attention need caches that are not batched
                both = (
                    self._stacked(made)
                    if optimizations.batched_caches and self.cached
                    else [(group, _fluent(group)) for group in made]
                )
        self.groups = [group for group, _ in both]
        self.fluent = [part for _, part in both]
        self.n_fluent = sum(len(part.prefixes) for part in self.fluent if part)

    def fork(self, kv: KeyValueCache | None, rows: int) -> KeyValueCache | None:
        """Repeat the KV cache of each prefix (the text left of the prompt) for `rows` rows.

        The result is None if `kv` is None (nothing is cached).

        Args:
            kv: KV cache with one row per prefix.
            rows: Number of rows of the result per prefix.
        """
        return (
            None
            if kv is None
            else kv.fork(torch.arange(kv.owners, device=self.runner.device).repeat_interleave(rows))
        )

    def left_of(
        self,
        start: KeyValueCache | None,
        group: PrefixGroup,
        cache: KeyValueCache | None,
        parent: Tensor,
        position: int,
    ) -> KeyValueCache | None:
        """Return the KV cache of the tokens that children (changed prompts) share with their parents.

        Args:
            start: KV cache of the prefixes (the text left of the prompt).
            group: Questions that are batched, with the KV caches of their prefixes.
            cache: KV cache of the parents (the original prompts); None if there is none.
            parent: Row of each child's parent.
            position: Position in the prompt from which the children run.

        Returns:
            The parents' cache cropped to the tokens left of `position`; the prefixes' cache if there are none
            or if the parents are not cached.
        """
        if position == 0 or not self.cached or cache is None:
            return self.fork(start, len(parent))
        parents = cache.batch // len(group.prefixes)
        rows = torch.arange(len(group.prefixes), device=parent.device)[:, None] * parents + parent
        return cache.fork(rows.flatten()).crop(group.length + position)

    def embed(self, group: PrefixGroup, ids: Ids, position: int) -> Float[Tensor, "row pos d_model"]:
        """Embed prompt tokens at their positions after each prefix (the text left of the prompt).

        If prefixes are not cached, the embedded prefix is put before the prompt tokens.

        Args:
            group: Questions that are batched, with their prefixes.
            ids: Token ids of the prompts from `position` on.
            position: Position in the prompt of the first of these tokens.
        """
        return self.lead(group, self._at_places(group, ids, position))

    def lead(self, group: PrefixGroup, embedded: Tensor) -> Tensor:
        """Put the embedded prefix (the text left of the prompt) before embedded prompts, if it is not cached.

        Args:
            group: Questions that are batched, with their prefixes.
            embedded: Embedded prompts; returned as they are if prefixes are cached.
        """
        if self.cached:
            return embedded
        prefix = torch.tensor(group.prefixes, device=self.runner.device).expand(len(embedded), -1)
        return torch.cat([self.runner.embed(prefix), embedded], dim=1)

    def leaf(self, group: PrefixGroup, ids: Ids) -> Float[Tensor, "row prompt_pos d_model"]:
        """Embed prompts after each prefix as an autograd leaf, to take gradients at the embeddings.

        Args:
            group: Questions that are batched, with their prefixes (the text left of the prompt).
            ids: Token ids of the prompts.
        """
        return self._at_places(group, ids, 0).detach().requires_grad_(True)

    def _at_places(self, group: PrefixGroup, ids: Ids, position: int) -> Tensor:
        at = {
            length: self.runner.embed(ids, length + position)
            for length in {len(prefix) for prefix in group.prefixes}
        }
        return torch.cat([at[len(prefix)] for prefix in group.prefixes])

    def own(self, group: PrefixGroup, resid: Tensor) -> Tensor:
        """Return the residuals at the prompt's positions only.

        If prefixes (the text left of the prompt) are cached, they are not among the residuals, which are
        returned as they are. Otherwise the prefix's positions are cut off.

        Args:
            group: Questions that are batched, with their prefixes.
            resid: Residuals of the positions that ran.
        """
        return resid if self.cached else resid[:, group.length :]

    def suffixes(
        self, group: PrefixGroup, n: int
    ) -> tuple[Float[Tensor, "row suffix_pos d_model"], Int[Tensor, " row"]]:
        """Embed the text after the prompt (the suffix) of questions that each have their own prefix.

        Args:
            group: Questions that are batched, each with its own prefix (the text left of the prompt).
            n: Number of tokens of a prompt, which determines the suffix's positions.

        Returns:
            The embedded suffixes, one row per question, and the position of each decision token (the last one
            before the answer) in its suffix.
        """
        members = [self.contexts[member] for member in group.members]
        ids = pad_right([c.after_prompt for c in members]).to(self.runner.device)
        last = torch.tensor([len(c.suffix_ids) - 1 for c in members], device=self.runner.device)
        rows = zip(group.prefixes, ids.split(1), strict=True)
        return torch.cat([self.runner.embed(row, len(prefix) + n) for prefix, row in rows]), last

    def to_top(
        self, resid: Tensor, high: KeyValueCache | None, keep: bool = False
    ) -> tuple[Tensor, KeyValueCache | None]:
        """Run the upper blocks: those above the blocks that the objective needs, up to the last.

        Args:
            resid: Residual stream after the last block that the objective needs.
            high: KV cache of the upper blocks for the text on the left; None if there is none.
            keep: Whether to return the cache extended by these positions.

        Returns:
            Residuals after the last block, and the extended cache (None unless `keep`).
        """
        n_layers = self.runner.shape.n_layers
        return (
            (resid, None)
            if self.depth == n_layers
            else self.runner.run(resid, self.depth, n_layers, high, keep=keep)
        )

    def _run(self, group: PrefixGroup, fluent: bool) -> PrefixGroup:
        """Run a group's one prefix and return the group with its caches."""
        ids = torch.tensor(group.prefixes, device=self.runner.device)
        resid, low = self.runner.run(self.runner.embed(ids), 0, self.depth, keep=True)
        high = chances = None
        if fluent:
            top, high = self.to_top(resid, None, keep=True)
            chances = self.runner.logits(top[:, -1:]).log_softmax(-1)
            if chances.isnan().any():
                check_prefix(self.runner, group.prefixes[0])
        return replace(
            group,
            low=low if self.cached else None,
            high=high if self.cached else None,
            next_log_probs=chances,
        )

    def _stacked(self, groups: Sequence[PrefixGroup]) -> list[tuple[PrefixGroup, PrefixGroup | None]]:
        """Batch groups with their own prefixes if the model can, ordered by round and by length."""
        stacks: list[list[PrefixGroup]] = []
        for group in sorted((group for group in groups if group.joined), key=self._place):
            if not stacks or not _fit(self._place(stacks[-1][0]), self._place(group)):
                stacks.append([])
            stacks[-1].append(group)
        shared = [(group, _fluent(group)) for group in groups if not group.joined]
        return shared + [both for stack in stacks for both in self._as_one(stack)]

    def _place(self, group: PrefixGroup) -> tuple[int, int, int]:
        """(round, length of the suffix, length of the prefix) of a group of one context, for sorting."""
        member = group.members[0]
        number = next(i for i, contexts in enumerate(self.rounds) if member in contexts)
        return number, len(self.contexts[member].after_prompt), group.length

    def _as_one(self, groups: list[PrefixGroup]) -> list[tuple[PrefixGroup, PrefixGroup | None]]:
        """Join groups into one, those that measure fluency first, and return it with its fluent part."""
        groups = sorted(groups, key=lambda group: group.next_log_probs is None)
        fluent = [group for group in groups if group.next_log_probs is not None]
        low, high = (
            self._stack([group.low for group in groups]),
            self._stack([group.high for group in fluent]),
        )
        if len(groups) == 1 or low is None:
            return [(group, _fluent(group)) for group in groups]
        whole = PrefixGroup(
            tuple(group.prefixes[0] for group in groups), [group.members[0] for group in groups], True, low
        )
        if not fluent:
            return [(whole, None)]
        chances = torch.cat([group.next_log_probs for group in fluent if group.next_log_probs is not None])
        return [(whole, replace(whole.part(whole.members[: len(fluent)]), high=high, next_log_probs=chances))]

    def _stack(self, caches: Sequence[KeyValueCache | None]) -> KeyValueCache | None:
        held = [kv for kv in caches if kv is not None]
        return held[0] if len(held) == 1 else self.runner.batch_caches(held) if held else None


def _fluent(group: PrefixGroup) -> PrefixGroup | None:
    """Return the group if its prefix measures fluency, else None."""
    return group if group.next_log_probs is not None else None


def _grouped(contexts: Contexts, shared: bool) -> list[PrefixGroup]:
    members: dict[object, list[int]] = {}
    for index, context in enumerate(contexts):
        key = context.prefix_ids if shared and context.suffix_ids else index
        members.setdefault(key, []).append(index)
    return [
        PrefixGroup((contexts[found[0]].prefix_ids,), found, len(found) == 1) for found in members.values()
    ]


def _rounds(total: int, halving: float, least: int, step: int) -> list[range]:
    """Rounds of successive halving, as ranges of context indices.

    `step` contexts (the branches of one context) belong together and are never separated.
    """
    first = min(total, -(-max(least, round(total * halving)) // step) * step)
    ends = [0, first if 0 < halving < 1 else total]
    while ends[-1] < total:
        ends.append(min(total, 2 * ends[-1]))
    return [range(start, end) for start, end in pairwise(ends)]


def _fit(first: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two contexts (see `_place`) may share a batch: same round, and little padding."""
    (number, suffix, prefix), (other_number, other_suffix, other_prefix) = first, other
    lengths = ((prefix, other_prefix, FEW[0]), (suffix, other_suffix, FEW[1]))
    return number == other_number and all(
        max(a, b) <= max(STRETCH * min(a, b), min(a, b) + few) for a, b, few in lengths
    )
