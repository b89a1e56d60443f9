"""Forward passes from which an objective is read: how prompts and contexts are batched.

Prompts are embedded after a group's prefix (`prefix_cache.py`). In a group whose contexts share the text left
of the slot, each prompt runs once and its cache is forked to the suffixes. Contexts with their own prefixes
(a *joined* group) run prompt and suffix in one pass. No batch has more than `chunk.tokens` tokens.
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

    Args:
        runner: The model's runner.
        objective: The objective.
        contexts: The contexts.
        prefixes: Their prefix caches; blocks up to `prefixes.depth` run for the objective.
        chunk: Tokens per batch; the scorer that owns it may reduce it.
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
        """Compute the objective of rows that each have one prompt and one context.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            rows: (number of the prompt, index of the context, ids after the prefix).
        """
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
        """Run whole prompts after the prefixes of a group of contexts, and compute the objective.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            embedded: Embedded prompts, ordered by prefix.
            keep: Whether the prompts' cache is returned.

        Returns:
            As in `forward`: the objective per prompt and context, residuals (not requested), and the prompts'
            cache.
        """
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
        """Run the last part of prompts and compute their objective in a group of contexts.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            embedded: Embedded prompt tokens from `position` on, ordered by prefix.
            position: First position that runs.
            kv: Cache of everything on the left; None if there is none.
            keep: Whether the prompts' cache is returned.
            want_resid: Whether the prompts' residuals after the blocks that the objective needs are returned.

        Returns:
            The objective per prompt and context, the residuals (ordered by prefix), and the cache. In joined
            groups (where prompt and suffix run in one pass) the last two are None if they are not requested.
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
        """Run prompt and suffix in one pass, for each prefix with its own suffix."""
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
        """Run the suffixes of some contexts (the text after the slot) after each prompt's cache.

        Args:
            cache: The prompts' cache.
            members: Indices of the contexts.
            rows: Number of prompts.

        Returns:
            The objective of each prompt in each context.
        """
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
        """Whether the last block may run at the decision token only.

        This needs the optimization to be on, and contexts without answer tokens after the decision token (the
        last token before the answer).
        """
        return self.optimizations.last_position and not any(self.contexts[m].tail for m in members)

    def read(
        self, caught: dict, resid: Tensor, last: Tensor, members: Sequence[int]
    ) -> Float[Tensor, " row"]:
        """Read the objective of each row from captured activations.

        Args:
            caught: Activations by site.
            resid: Residual stream after the blocks that the objective needs, at all positions or at the
                decision token only.
            last: Position of the decision token (the last one before the answer) in each row.
            members: Index of each row's context.
        """
        stream = resid if self.objective.needs_final else None
        return self.objective.score(
            Readout.of(self.runner, caught, stream, last, self.answers, members)
        ).float()

    # ---- batches ----------------------------------------------------------------------------------------------------

    def child_chunks(
        self, group: PrefixGroup, length: int, positions: Tensor, rows: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield batches of children as (position to start from, row indices).

        A batch has as many rows as whole prompts would fit with their suffixes (the text after the slot),
        since the cache of the unchanged tokens is in memory too.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            length: Tokens of a prompt.
            positions: First changed position of every child, on the CPU.
            rows: Indices of the children to run.
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
        """Split prompts into chunks that fit, with their suffixes (the text after the slot), into one batch.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            rows: Number of prompts.
            length: Tokens of a prompt.
            tokens: Tokens per batch.

        Returns:
            An iterator over row indices.
        """
        yield from torch.arange(rows, device=self.runner.device).split(
            self.rows_at_once(group, length, tokens)
        )

    def rows_at_once(self, group: PrefixGroup, length: int, tokens: int) -> int:
        """Return how many prompts fit, with their suffixes (the text after the slot), into one batch.

        Contexts are batched too: suffixes take at most a quarter of the tokens, or one suffix, so that
        prompts do not run one by one.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            length: Tokens of a prompt.
            tokens: Tokens per batch.
        """
        lead = 0 if self.optimizations.prefix_kv else group.length
        longest = max(len(self.contexts[member].after_prompt) for member in group.members)
        suffixes = longest if group.joined else min(longest * len(group.members), max(longest, tokens // 4))
        return max(1, tokens // (lead + length + suffixes))

    def parts(self, group: PrefixGroup, members: Sequence[int], rows: int, length: int) -> list[PrefixGroup]:
        """Return a prefix group on some of its contexts, cut into parts that each fit into one batch.

        Only joined groups, whose prompts and suffixes run in one pass, are cut.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            members: Indices of the contexts.
            rows: Number of prompts.
            length: Tokens of a prompt.
        """
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
        """Separate contexts over which the cross-entropy is averaged from the others, if that is cheaper.

        It is cheaper if running the whole last block for the other contexts costs more than an additional run
        of the blocks.

        Args:
            parts: Parts of a prefix group.
            fluent: The contexts over which the cross-entropy is averaged; None if there are none.
            children: Number of children.
        """
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
        """Split a group's contexts, in their order, into chunks that fit into one batch.

        The tokens of a chunk are rows x contexts x the longest suffix (the text after the slot); in joined
        groups the prompt is added to the suffix.

        Args:
            group: Contexts that are batched, with their cached prefixes.
            rows: Number of prompts.
            length: Tokens of a prompt.
            tokens: Tokens per batch.
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
    """Split a prefix group into its contexts among `members` and the others; None for an empty part.

    A group whose contexts share one run of the prompt is not split.
    """
    if group is None or not group.joined:
        return group, None
    among = [member for member in group.members if member in members]
    rest = [member for member in group.members if member not in members]
    return group.part(among) if among else None, group.part(rest) if rest else None
