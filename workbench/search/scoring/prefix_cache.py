"""What is left of the prompt: run once, its keys and values kept and forked to the prompts and children after it.

1. Contexts with the same ids left of the slot form one `PrefixGroup` with one prefix.
2. A prefix is run once: keys and values below the read-out depth for the objective, and above it for fluency.
3. Contexts whose prefixes are their own (prompt after the question) are batched into groups of many prefixes,
   so that one run of the blocks serves them all; their order follows the prefixes' lengths, because shorter
   ones are padded.
4. Every prompt forks its prefix's cache; a child forks its parent's, cropped to what both share.

Rows of a group with several prefixes come prefix by prefix. Without `Optimizations.prefix_kv` nothing is kept
and the prefix is run again in front of every prompt.
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
    """Which optimizations a search uses. Each but `halving` is exact: it changes no score beyond rounding.

    Attributes:
        prefix_kv: Cache the keys and values of the text left of the slot.
        shared_prompt: Fork a prompt's cache to all contexts with the same left text.
        parent_kv: Continue a child from its parent's cache.
        deferred_cross_entropy: Compute the cross-entropy only of prompts that may be kept.
        last_position: Run the last block at the decision token only.
        batched_caches: Run contexts with prefixes of their own as one left-padded batch.
        halving: Fraction of the contexts on which all children are scored first; the better half goes on to
            as many contexts again, and so on (0: off). An approximation in which children survive, never in a
            survivor's score, which is over all contexts.

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
    """Contexts (by index) that are batched.

    With their prefixes' caches below and above the read-out depth, and
    log p(first prompt token).

    prefixes: one that all members share, or one for each. joined: prompt and suffix are run in one pass
    (every member has its own prefix); else the prompt is run once and forked to the members.
    """

    prefixes: tuple[tuple[int, ...], ...]
    members: list[int]
    joined: bool
    low: KeyValueCache | None = None
    high: KeyValueCache | None = None
    next_log_probs: Float[Tensor, "prefix 1 d_vocab"] | None = None

    @property
    def length(self) -> int:
        """Positions left of the prompt, padding counted."""
        return max(map(len, self.prefixes))

    def part(self, members: Sequence[int]) -> PrefixGroup:
        """The group with some of its members only."""
        if not self.joined or len(members) == len(self.members):
            return replace(self, members=list(members))
        at = [self.members.index(member) for member in members]
        prefixes = tuple(self.prefixes[i] for i in at)
        longest = max(map(len, prefixes))
        low, high = (None if kv is None else kv.pick(at, kv.length - longest) for kv in (self.low, self.high))
        chances = None if self.next_log_probs is None else self.next_log_probs[at]
        return PrefixGroup(prefixes, list(members), True, low, high, chances)


class PrefixCache:
    """The groups of some contexts for objectives that read at `depth` blocks.

    The first `fluent` prefixes measure fluency. Their parts of the groups, with caches above the read-out
    depth too, are `fluent`: one or None for each group.
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
        #: so on. The first round holds every prefix that fluency is averaged over, because it is taken from
        #: there.
        least = max(min(group.members) for group in alone[:fluent]) + 1
        self.rounds = _rounds(len(contexts), optimizations.halving, least, contexts[0].n_branches)
        with torch.no_grad():
            made = [self._run(group, number < fluent) for number, group in enumerate(alone)]
            with runner.capture(sites):  # who looks inside attention gets it unstacked
                both = (
                    self._stacked(made)
                    if optimizations.batched_caches and self.cached
                    else [(group, _fluent(group)) for group in made]
                )
        self.groups = [group for group, _ in both]
        self.fluent = [part for _, part in both]
        self.n_fluent = sum(len(part.prefixes) for part in self.fluent if part)

    def fork(self, kv: KeyValueCache | None, rows: int) -> KeyValueCache | None:
        """Each prefix's one cache for so many rows."""
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
        """The cache left of the changed position for the children of each prefix.

        The prefix's cache `start`, or the parents' cropped to what is shared.
        """
        if position == 0 or not self.cached or cache is None:
            return self.fork(start, len(parent))
        parents = cache.batch // len(group.prefixes)
        rows = torch.arange(len(group.prefixes), device=parent.device)[:, None] * parents + parent
        return cache.fork(rows.flatten()).crop(group.length + position)

    def embed(self, group: PrefixGroup, ids: Ids, position: int) -> Float[Tensor, "row pos d_model"]:
        """Embedded prompt tokens at their places after each prefix; without prefix caches the prefix is embedded with them."""
        return self.lead(group, self._at_places(group, ids, position))

    def lead(self, group: PrefixGroup, embedded: Tensor) -> Tensor:
        """The embedded prefix in front, where it has no cache."""
        if self.cached:
            return embedded
        prefix = torch.tensor(group.prefixes, device=self.runner.device).expand(len(embedded), -1)
        return torch.cat([self.runner.embed(prefix), embedded], dim=1)

    def leaf(self, group: PrefixGroup, ids: Ids) -> Float[Tensor, "row prompt_pos d_model"]:
        """The prompt's embeddings after each prefix as something to differentiate with respect to."""
        return self._at_places(group, ids, 0).detach().requires_grad_(True)

    def _at_places(self, group: PrefixGroup, ids: Ids, position: int) -> Tensor:
        at = {
            length: self.runner.embed(ids, length + position)
            for length in {len(prefix) for prefix in group.prefixes}
        }
        return torch.cat([at[len(prefix)] for prefix in group.prefixes])

    def own(self, group: PrefixGroup, resid: Tensor) -> Tensor:
        """The prompt's own positions (without prefix caches the prefix was run with them)."""
        return resid if self.cached else resid[:, group.length :]

    def suffixes(
        self, group: PrefixGroup, n: int
    ) -> tuple[Float[Tensor, "row suffix_pos d_model"], Int[Tensor, " row"]]:
        """Of a joined group: each member's embedded suffix after prompts of n tokens, and the position of its decision token in it.

        One row per member.
        """
        members = [self.contexts[member] for member in group.members]
        ids = pad_right([c.after_prompt for c in members]).to(self.runner.device)
        last = torch.tensor([len(c.suffix_ids) - 1 for c in members], device=self.runner.device)
        rows = zip(group.prefixes, ids.split(1), strict=True)
        return torch.cat([self.runner.embed(row, len(prefix) + n) for prefix, row in rows]), last

    def to_top(
        self, resid: Tensor, high: KeyValueCache | None, keep: bool = False
    ) -> tuple[Tensor, KeyValueCache | None]:
        """From the read-out depth to the end, after the rows' cache `high`."""
        n_layers = self.runner.shape.n_layers
        return (
            (resid, None)
            if self.depth == n_layers
            else self.runner.run(resid, self.depth, n_layers, high, keep=keep)
        )

    def _run(self, group: PrefixGroup, fluent: bool) -> PrefixGroup:
        """The group with its one prefix's caches."""
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
        """Groups of one prefix each, those with prefixes of their own batched where the model can: round by round, by their lengths."""
        stacks: list[list[PrefixGroup]] = []
        for group in sorted((group for group in groups if group.joined), key=self._place):
            if not stacks or not _fit(self._place(stacks[-1][0]), self._place(group)):
                stacks.append([])
            stacks[-1].append(group)
        shared = [(group, _fluent(group)) for group in groups if not group.joined]
        return shared + [both for stack in stacks for both in self._as_one(stack)]

    def _place(self, group: PrefixGroup) -> tuple[int, int, int]:
        """(round, length of the suffix, length of the prefix) of a group of one context."""
        member = group.members[0]
        number = next(i for i, contexts in enumerate(self.rounds) if member in contexts)
        return number, len(self.contexts[member].after_prompt), group.length

    def _as_one(self, groups: list[PrefixGroup]) -> list[tuple[PrefixGroup, PrefixGroup | None]]:
        """The groups as one, those that measure fluency first, and these as a part of it."""
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
    """The group, if its prefix measures fluency."""
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
    """The rounds of successive halving, as slices of the contexts.

    step: contexts that belong together (the branches of one); they are never parted.
    """
    first = min(total, -(-max(least, round(total * halving)) // step) * step)
    ends = [0, first if 0 < halving < 1 else total]
    while ends[-1] < total:
        ends.append(min(total, 2 * ends[-1]))
    return [range(start, end) for start, end in pairwise(ends)]


def _fit(first: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two contexts (`_place`) are in one batch: in the same round, and no more padding than is cheap."""
    (number, suffix, prefix), (other_number, other_suffix, other_prefix) = first, other
    lengths = ((prefix, other_prefix, FEW[0]), (suffix, other_suffix, FEW[1]))
    return number == other_number and all(
        max(a, b) <= max(STRETCH * min(a, b), min(a, b) + few) for a, b, few in lengths
    )
