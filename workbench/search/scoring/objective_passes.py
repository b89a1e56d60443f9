"""Runs of the blocks that an objective is read from: which prompts and contexts are one batch, and what is read of it.

Prompts come as embeddings after a group's prefix (`prefix_cache.py`). A group whose contexts share what is
left of the slot runs each prompt once and forks its cache to the suffixes; contexts with prefixes of their own
(a *joined* group) have prompt and suffix run in one pass. No batch holds more than `chunk.tokens` tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.answer_tokens import AnswerTable
from workbench.contexts import Contexts
from workbench.models import KeyValueCache, Runner, pad_right
from workbench.objectives import Objective, Readout
from workbench.search.scoring.batch_size import BatchSize
from workbench.search.scoring.candidate_batching import batch_candidates, launch_overhead_tokens
from workbench.search.scoring.prefix_cache import PrefixCache, PrefixGroup


class ObjectivePasses:
    """The forward passes of one objective on fixed contexts.

    depth: blocks that the objective needs. chunk: tokens that are run at a time; the scorer that owns it may
    make it smaller.
    """

    def __init__(
        self,
        runner: Runner,
        objective: Objective,
        contexts: Contexts,
        prefixes: PrefixCache,
        chunk: BatchSize,
    ) -> None:
        self.runner, self.objective, self.contexts = runner, objective, contexts
        self.prefixes, self.chunk, self.optimizations = prefixes, chunk, prefixes.optimizations
        self.depth = prefixes.depth
        self.answers = AnswerTable(contexts, runner.device)

    def rows(
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
            if self.last_position(members):
                resid = self.runner.run_at(embedded, 0, self.depth, last, kv, self.objective.sites)
            else:
                resid, _ = self.runner.run(embedded, 0, self.depth, kv)
        return self.read(caught, resid, last, members)

    def parents(
        self, group: PrefixGroup, embedded: Tensor, keep: bool = False
    ) -> tuple[
        Float[Tensor, "row context"], Float[Tensor, "row prompt_pos d_model"] | None, KeyValueCache | None
    ]:
        """Whole prompts after the group's prefixes."""
        kv = self.prefixes.fork(group.low, len(embedded) // len(group.prefixes))
        return self.forward(group, embedded, 0, kv, keep, want_resid=False)

    def forward(
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
        chunks = self.context_chunks(group, len(embedded), embedded.shape[1], self.chunk.tokens)
        return (
            torch.cat([self.suffixes(cache, chunk, len(embedded)) for chunk in chunks], dim=1),
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
            if keep or want_resid or not self.last_position(members):
                resid, cache = self.runner.run(whole, 0, self.depth, kv, keep=keep)
            else:
                resid, cache = self.runner.run_at(whole, 0, self.depth, last, kv, self.objective.sites), None
        scores = rearrange(self.read(caught, resid, last, members), "(prefix row) -> row prefix", row=each)
        return scores, resid[:, :n] if want_resid else None, cache

    def suffixes(self, cache: KeyValueCache, members: list[int], rows: int) -> Float[Tensor, "row context"]:
        """The suffixes of some contexts after each of the rows' caches."""
        contexts = [self.contexts[m] for m in members]
        ids = pad_right([c.after_prompt for c in contexts]).to(self.runner.device)
        embedded = self.runner.embed(ids, cache.length).repeat(rows, 1, 1)
        fork = torch.arange(rows, device=self.runner.device).repeat_interleave(len(members))
        last = torch.tensor([len(c.suffix_ids) - 1 for c in contexts], device=self.runner.device).repeat(rows)
        with self.runner.capture(self.objective.sites) as caught:
            if self.last_position(members):
                resid = self.runner.run_at(
                    embedded, 0, self.depth, last, cache.fork(fork), self.objective.sites
                )
            else:
                resid, _ = self.runner.run(embedded, 0, self.depth, cache.fork(fork))
        return rearrange(
            self.read(caught, resid, last, members * rows), "(row context) -> row context", row=rows
        )

    def last_position(self, members: Sequence[int]) -> bool:
        """Whether of the last block the decision token alone is run to its end: no answer goes on after it."""
        return self.optimizations.last_position and not any(self.contexts[m].tail for m in members)

    def read(
        self, caught: dict, resid: Tensor, last: Tensor, members: Sequence[int]
    ) -> Float[Tensor, " row"]:
        """The objective of rows whose decision token is at `last`, or is all that is there."""
        stream = resid if self.objective.needs_final else None
        return self.objective.score(
            Readout.of(self.runner, caught, stream, last, self.answers, members)
        ).float()

    # ---- batches ----------------------------------------------------------------------------------------------------

    def child_chunks(
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
        size = max(1, self.rows_at_once(group, length, self.chunk.tokens) // len(group.prefixes))
        start = launch_overhead_tokens(self.runner.shape.block_parameters, self.runner.device.type) / len(
            group.prefixes
        )
        for first, last in batch_candidates(sorted(Counter(positions.tolist()).items()), length, start):
            for chunk in rows[(positions >= first) & (positions <= last)].split(size):
                yield first, chunk

    def row_chunks(self, group: PrefixGroup, rows: int, length: int, tokens: int) -> Iterator[Tensor]:
        """Row indices of prompts, as many at a time as fit into `tokens` with their suffixes."""
        yield from torch.arange(rows, device=self.runner.device).split(
            self.rows_at_once(group, length, tokens)
        )

    def rows_at_once(self, group: PrefixGroup, length: int, tokens: int) -> int:
        """Prompts that fit into `tokens` with their suffixes, after one prefix.

        Contexts are batched too: suffixes take no more than a quarter, or one suffix, so that prompts are not
        run one by one.
        """
        lead = 0 if self.optimizations.prefix_kv else group.length
        longest = max(len(self.contexts[member].after_prompt) for member in group.members)
        suffixes = longest if group.joined else min(longest * len(group.members), max(longest, tokens // 4))
        return max(1, tokens // (lead + length + suffixes))

    def parts(self, group: PrefixGroup, members: Sequence[int], rows: int, length: int) -> list[PrefixGroup]:
        """The group on some of its contexts, cut where prompts and suffixes are run in one pass and would not fit."""
        if not members:
            return []
        some = group.part(members)
        return (
            [some.part(chunk) for chunk in self.context_chunks(some, rows, length, self.chunk.tokens)]
            if some.joined
            else [some]
        )

    def fluent_apart(
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
            apart = first and children * others > overhead and self.last_position(part.members)
            cut += (
                [part.part(part.members[:first]), part.part(part.members[first:])]
                if apart and others
                else [part]
            )
        return cut

    def context_chunks(self, group: PrefixGroup, rows: int, length: int, tokens: int) -> list[list[int]]:
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


def split_group(
    group: PrefixGroup | None, members: Sequence[int]
) -> tuple[PrefixGroup | None, PrefixGroup | None]:
    """The part of a group whose contexts are among `members`, and the rest of it; a shared prompt is never parted."""
    if group is None or not group.joined:
        return group, None
    among = [member for member in group.members if member in members]
    rest = [member for member in group.members if member not in members]
    return group.part(among) if among else None, group.part(rest) if rest else None
