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
    """Run the forward passes that compute one objective on fixed questions.

    Args:
        runner: The model's runner.
        objective: The objective.
        contexts: The questions, rendered as chats with a place for the prompt.
        prefixes: The KV caches of the text left of the prompt. Its `depth` is the number of blocks that run.
        chunk: The batch size; it is shared with the scorer, which may reduce it.
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
        """Compute the objective of rows, each of which is one prompt in one question.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
            rows: (number of the prompt, index of the question, token ids of the prompt and of the text after
                it).
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
        """Run whole prompts after the prefixes of some questions, and compute the objective.

        A prefix is the chat text left of the prompt.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes.
            embedded: Embedded prompts, one row per prefix and prompt, ordered by prefix.
            keep: Whether to return the KV cache of the prompts.

        Returns:
            The objective of each prompt in each question, residuals (for internal use, or None), and the
            prompts' KV cache (None if every question has its own prefix and `keep` is False).
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
        """Run prompts from one position on, and compute their objective in a group of questions.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
            embedded: Embedded prompt tokens from `position` on, one row per prefix and prompt, ordered by
                prefix.
            position: First position of the prompt that runs; the tokens on its left are cached.
            kv: KV cache of everything on the left of `position`; None if there is none.
            keep: Whether to return the KV cache of the prompts.
            want_resid: Whether to return the prompts' residuals after the last block that the objective
                needs.

        Returns:
            The objective of each prompt in each question, the residuals (ordered by prefix), and the KV
            cache. If every question has its own prefix, prompt and following text run in one pass, and the
            last two are None unless requested.
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
        """Run the text after the prompt (the suffix) of some questions, continuing each prompt's KV cache.

        Args:
            cache: The KV cache of the prompts.
            members: Indices of the questions.
            rows: Number of prompts.

        Returns:
            The objective of each prompt in each question.
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
        """Whether the last block may run at the decision token (the last one before the answer) only.

        This needs `Optimizations.last_position`, and questions whose chats have no answer tokens after the
        decision token.

        Args:
            members: Indices of the questions.
        """
        return self.optimizations.last_position and not any(self.contexts[m].tail for m in members)

    def read(
        self, caught: dict, resid: Tensor, last: Tensor, members: Sequence[int]
    ) -> Float[Tensor, " row"]:
        """Compute the objective of each row from the activations that a pass captured.

        Args:
            caught: Captured activations by site.
            resid: Residual stream after the last block that the objective needs, at all positions or at the
                decision token (the last one before the answer) only.
            last: Position of the decision token in each row.
            members: Index of each row's question.
        """
        stream = resid if self.objective.needs_final else None
        return self.objective.score(
            Readout.of(self.runner, caught, stream, last, self.answers, members)
        ).float()

    # ---- batches ----------------------------------------------------------------------------------------------------

    def child_chunks(
        self, group: PrefixGroup, length: int, positions: Tensor, rows: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield batches of children (changed prompts) as pairs: position to start from, indices of children.

        Tokens left of that position are cached. Since their cache is in memory too, a batch has only as many
        children as would fit if each ran as a whole prompt with its suffix (the text after it).

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
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
        """Split prompts into batches of at most `tokens` tokens.

        The suffixes of the questions (the text after the prompt) that run in the same batch are counted too.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
            rows: Number of prompts.
            length: Tokens of a prompt.
            tokens: Batch size in tokens.

        Returns:
            An iterator over the indices of each batch's prompts.
        """
        yield from torch.arange(rows, device=self.runner.device).split(
            self.rows_at_once(group, length, tokens)
        )

    def rows_at_once(self, group: PrefixGroup, length: int, tokens: int) -> int:
        """Return how many prompts, with their suffixes (the text after the prompt), fit into one batch.

        A batch has several questions too. Their suffixes get at most a quarter of the tokens (but at least
        one suffix), so that prompts do not run one by one.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes (the text left of the
                prompt).
            length: Tokens of a prompt.
            tokens: Batch size in tokens.
        """
        lead = 0 if self.optimizations.prefix_kv else group.length
        longest = max(len(self.contexts[member].after_prompt) for member in group.members)
        suffixes = longest if group.joined else min(longest * len(group.members), max(longest, tokens // 4))
        return max(1, tokens // (lead + length + suffixes))

    def parts(self, group: PrefixGroup, members: Sequence[int], rows: int, length: int) -> list[PrefixGroup]:
        """Return some questions of a group, split into parts that each fit into one batch.

        A group is split only if every question has its own prefix (the text left of the prompt). Questions
        with a shared prefix remain one part, since the prompt runs once for all of them.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes.
            members: Indices of the questions to return.
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
        """Separate the questions that are used for the cross-entropy from the others, if that is cheaper.

        The cross-entropy needs the residuals of all prompt tokens, so that the last block must run at all
        positions. Separation is cheaper if doing this for the other questions too costs more than an
        additional run of the blocks.

        Args:
            parts: Questions in parts that each fit into one batch.
            fluent: The questions over which the cross-entropy is averaged; None if there are none.
            children: Number of prompts that are scored.
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
        """Split a group's questions, in their order, into batches of at most `tokens` tokens.

        A batch has prompts x questions x longest suffix (the text after the prompt) tokens. If every question
        has its own prefix (the text left of the prompt), the prompt's tokens are added to the suffix.

        Args:
            group: Questions that are batched, with the KV caches of their prefixes.
            rows: Number of prompts.
            length: Tokens of a prompt.
            tokens: Batch size in tokens.

        Returns:
            Indices of the questions of each batch.
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
    """Split a group of questions into those among `members` and the others; None for an empty part.

    A group whose questions share the text left of the prompt is not split: it is the first part.

    Args:
        group: Questions that are batched; None for no questions, which gives two times None.
        members: Indices of questions.
    """
    if group is None or not group.joined:
        return group, None
    among = [member for member in group.members if member in members]
    rest = [member for member in group.members if member not in members]
    return group.part(among) if among else None, group.part(rest) if rest else None
