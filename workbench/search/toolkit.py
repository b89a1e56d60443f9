"""Tools of all search methods: the scorer, the allowed tokens, the random generator, and drawing children.

Every method draws a child in three steps: choose positions of the parent; choose new tokens by the method's
weights; keep the child only if its text, encoded inside the whole rendered context, gives its ids back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import UserError
from workbench.lexicons import Lexicon
from workbench.prompt_tokens import all_survive, allowed_ids
from workbench.search.scored_prompts import ChildProposals, Ids
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.scoring.scorer import Scorer

#: Number of tokens whose embeddings are multiplied at a time, so that the embedding is never copied as a
#: whole.
VOCABULARY_CHUNK = 16384

Table = Float[Tensor, "candidate prompt_pos d_vocab"]


@dataclass(frozen=True)
class SearchToolkit:
    """Tools that a search method uses: scorer, allowed tokens, random generator and memory.

    Attributes:
        scorer: Scores prompts for the search's objective.
        first: Mask of the tokens that may begin a prompt, bool [d_vocab].
        later: Mask of the tokens that may be at the other positions of a prompt, bool [d_vocab].
        generator: The one random generator of the search.
        memory: What the method has learned, as tensors by name; checkpoints save them.
        tools: Objects that the method makes once and keeps; checkpoints do not save them, since it can make
            them again.
    """

    scorer: Scorer
    first: Bool[Tensor, " d_vocab"]
    later: Bool[Tensor, " d_vocab"]
    generator: torch.Generator
    memory: dict[str, Tensor] = field(default_factory=dict)
    tools: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls, scorer: Scorer, seed: int, lexicon: Lexicon | Bool[Tensor, " d_vocab"] | None = None
    ) -> SearchToolkit:
        """Make the tools of one search: scorer, allowed tokens and random generator.

        Args:
            scorer: The search's scorer.
            seed: Seed of the random generator.
            lexicon: Restricts the allowed tokens further: one mask [d_vocab], or a mask for the first token
                and one for the others; None for no further restriction.

        Raises:
            UserError: No token is allowed.
        """
        first = later = allowed_ids(scorer.runner)
        if isinstance(lexicon, Lexicon):
            first, later = first & lexicon.begin(scorer.contexts[0].lead).cpu(), later & lexicon.later.cpu()
        elif lexicon is not None:
            first = later = first & lexicon.cpu()
        if not first.any() or not later.any():
            raise UserError(
                "no token is left to search with: the lexicon and the tokens that may be in a prompt have none in common"
            )
        device = scorer.runner.device
        return cls(scorer, first.to(device), later.to(device), torch.Generator().manual_seed(seed))

    @cached_property
    def allowed(self) -> Bool[Tensor, " d_vocab"]:
        """Mask of the tokens that are allowed at some position of a prompt."""
        return self.first | self.later

    @cached_property
    def _most(self) -> int:
        """Number of tokens that are allowed at every position."""
        return min(int(self.first.sum()), int(self.later.sum()))

    @cached_property
    def _same(self) -> bool:
        return bool(torch.equal(self.first, self.later))

    def allowed_at(self, length: int) -> Bool[Tensor, "prompt_pos d_vocab"]:
        """Return one mask of allowed tokens for each position of a prompt of `length` tokens."""
        return torch.stack([self.first, *[self.later] * (length - 1)])

    def tokens_at(self, length: int) -> Int[Tensor, "prompt_pos k"]:
        """Return the ids of the tokens that are allowed at each position of a prompt, as one tensor.

        The first position may allow fewer or more tokens than the others; the shorter list of ids is then
        repeated.

        Args:
            length: Number of positions.
        """
        first, later = (torch.nonzero(mask)[:, 0] for mask in (self.first, self.later))
        k = max(len(first), len(later) if length > 1 else 0)
        filled = [ids[torch.arange(k, device=ids.device) % len(ids)] for ids in (first, later)]
        return torch.stack([filled[0], *[filled[1]] * (length - 1)])

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """`first` and `later` as arrays on the CPU, for look-ups of single prompts."""
        return self.first.cpu().numpy(), self.later.cpu().numpy()

    def _in_lexicon(self, ids: tuple[int, ...]) -> bool:
        first, later = self._places
        return self._same or (bool(first[ids[0]]) and bool(later[list(ids[1:])].all()))

    def random_prompts(self, n: int, length: int) -> Ids:
        """Draw random prompts of allowed tokens.

        A prompt is kept only if its text, encoded inside the chat, has the same token ids again.

        Args:
            n: Number of prompts.
            length: Tokens of each prompt.

        Raises:
            UserError: Too few random prompts are kept.
        """
        kept: list[tuple[int, ...]] = []
        choices = self.tokens_at(length).cpu()
        for _ in range(50):
            drawn = choices[
                torch.arange(length),
                torch.randint(choices.shape[1], (2 * n, length), generator=self.generator),
            ]
            kept += self._surviving([tuple(row) for row in drawn.tolist()])
            if len(kept) >= n:
                return torch.tensor(kept[:n], device=self.scorer.runner.device)
        raise UserError(
            f"no {length}-token prompt of this vocabulary survives decode -> encode inside the context"
        )

    def sampled_prompts(self, n: int, length: int, temperature: float = 1.0) -> Ids:
        """Let the model write `n` prompts in the chat's slot, the place where prompts are inserted.

        A prompt is kept only if its text, encoded inside the chat, has the same token ids again. If the model
        writes too few such prompts, random ones are added. The chat is that of the search's first question.

        Args:
            n: Number of prompts.
            length: Tokens of each prompt.
            temperature: Sampling temperature.
        """
        runner, kept = self.scorer.runner, []
        prefix = torch.tensor([self.scorer.contexts[0].prefix_ids]).expand(2 * n, -1)
        for _ in range(8):
            ids = runner.generate(prefix, length, temperature, self.generator, banned=~self.allowed)
            kept += self._surviving([tuple(row) for row in ids.tolist()])
            if len(kept) >= n:
                return torch.tensor(kept[:n], device=runner.device)
        missing = n - len(kept)
        rest = self.random_prompts(missing, length)
        return torch.cat(
            [torch.tensor(kept, dtype=torch.long, device=runner.device).reshape(-1, length), rest]
        )

    def gains(
        self, prepared: PreparedParents, gradients: Float[Tensor, "candidate prompt_pos d_model"]
    ) -> Table:
        """Return the first-order change of a score for every replacement of one token of every parent prompt.

        The change is gradient . (new embedding - old embedding).

        Args:
            prepared: The parent prompts.
            gradients: Gradient of the score with respect to the embeddings of the parents' tokens.
        """
        runner, slope = self.scorer.runner, gradients.to(self.scorer.runner.dtype)
        table = torch.empty(*slope.shape[:2], runner.shape.d_vocab, device=slope.device)
        for start in range(0, runner.shape.d_vocab, VOCABULARY_CHUNK):
            stop = min(start + VOCABULARY_CHUNK, runner.shape.d_vocab)
            table[..., start:stop] = slope @ runner.embeddings(start, stop).T
        return table.sub_(table.gather(-1, prepared.ids[..., None]))

    def log_prob_gains(self, prepared: PreparedParents) -> Table:
        """Return the change of a token's log-probability for every replacement of one token of every parent.

        The change is log p(new token | left) - log p(old token | left) in nats, given the tokens on its left.

        Args:
            prepared: The parent prompts with their log-probabilities.
        """
        table = torch.cat([prepared.log_probs.parent(row) for row in range(len(prepared.ids))])
        return table - table.gather(-1, prepared.ids[..., None])

    def gumbel(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard Gumbel noise of a shape.

        Added to log-weights, the noise gives a weighted draw without replacement: the largest sums are the
        drawn entries.
        """
        uniform = torch.rand(shape, generator=self.generator).clamp(1e-9, 1 - 1e-9)
        return -torch.log(-torch.log(uniform)).to(self.scorer.runner.device)

    def top_tokens(self, table: Table, ids: Ids, k: int) -> Int[Tensor, "candidate prompt_pos k"]:
        """Return the k allowed tokens with the largest table values at every position of every prompt.

        The token that the prompt already has at the position is excluded.

        Args:
            table: A value for every prompt, position and token of the vocabulary.
            ids: Token ids of the prompts.
            k: Number of tokens per position.
        """
        masked = table.masked_fill(~self.allowed_at(ids.shape[1]), -torch.inf).scatter(
            -1, ids[..., None], -torch.inf
        )
        return masked.topk(max(1, min(k, self._most - 1)), dim=-1).indices

    def best_swaps(
        self,
        prepared: PreparedParents,
        gradients: Float[Tensor, "candidate prompt_pos d_model"],
        weights: tuple[float, ...],
        k: int,
    ) -> Int[Tensor, "candidate prompt_pos k"]:
        """Return the k allowed tokens with the largest predicted gain at every position of every parent prompt.

        The gain is gradient . (new embedding - old embedding) + weight x (log p(new) - log p(old)). With a
        large vocabulary, a part of it is handled for all parents at a time, so that products have many rows;
        otherwise all of it for one parent at a time. Both keep the memory of one table over the vocabulary.

        Args:
            prepared: The parent prompts with their log-probabilities.
            gradients: Gradient of the score with respect to the embeddings of the parents' tokens.
            weights: A factor of the log-probabilities for each parent.
            k: Number of tokens per position.
        """
        if self._gains_between(prepared, gradients, weights, 0, 1) is None:
            tables = (
                self.gains(prepared.parent(i), gradients[i : i + 1]).add_(
                    self.log_prob_gains(prepared.parent(i)), alpha=weight
                )
                for i, weight in enumerate(weights)
            )
            return torch.cat(
                [self.top_tokens(table, prepared.ids[i : i + 1], k) for i, table in enumerate(tables)]
            )
        k, allowed = max(1, min(k, self._most - 1)), self.allowed_at(prepared.ids.shape[1])
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, self.scorer.runner.shape.d_vocab, VOCABULARY_CHUNK):
            stop = min(start + VOCABULARY_CHUNK, self.scorer.runner.shape.d_vocab)
            tokens = torch.arange(start, stop, device=prepared.ids.device)
            gains = self._gains_between(prepared, gradients, weights, start, stop)
            assert gains is not None, "a part of the vocabulary was just computed"
            gains.masked_fill_(~allowed[:, start:stop] | (tokens == prepared.ids[..., None]), -torch.inf)
            found, ids = gains, tokens.expand_as(gains)
            if best:
                found, ids = torch.cat([best[0], found], dim=-1), torch.cat([best[1], ids], dim=-1)
            top = found.topk(min(k, found.shape[-1]), dim=-1)
            best = top.values, ids.gather(-1, top.indices)
        assert best is not None, "a vocabulary has tokens"
        return best[1]

    def _gains_between(
        self,
        prepared: PreparedParents,
        gradients: Float[Tensor, "candidate prompt_pos d_model"],
        weights: tuple[float, ...],
        start: int,
        stop: int,
    ) -> Float[Tensor, "candidate prompt_pos token"] | None:
        """Gains of `best_swaps` for the tokens start..stop-1, up to a constant of each position (the old token's).

        None if the log-probabilities of a part of the vocabulary are no cheaper than those of all.
        """
        log_probs = prepared.log_probs.between(start, stop)
        if log_probs is None:
            return None
        factors = torch.tensor(weights, device=log_probs.device)[:, None, None]
        slope = gradients.to(self.scorer.runner.dtype)
        return (slope @ self.scorer.runner.embeddings(start, stop).T).float() + factors * log_probs

    def swap(
        self, ids: Ids, tokens: Int[Tensor, "candidate prompt_pos k"], per_parent: int, swaps: int = 1
    ) -> ChildProposals:
        """Draw children (changed copies) of each parent prompt by replacing tokens at random positions.

        Args:
            ids: Token ids of the parents; best on the CPU, since children are made there, so that the CPU
                waits for the GPU only once, for `tokens`.
            tokens: Candidate tokens for each position of each parent; the new token is drawn uniformly from
                them.
            per_parent: Children per parent.
            swaps: Number of tokens replaced in each child.

        Returns:
            Different children whose text, encoded inside the chat, has the same token ids again; there may be
            fewer than requested.
        """
        ids, tokens = ids.cpu(), tokens.cpu()
        parents, length = ids.shape
        wanted = parents * per_parent
        draw = lambda high, n: torch.randint(high, (n,), generator=self.generator).to(ids.device)  # noqa: E731
        kept: list[tuple[int, tuple[int, ...], int]] = []
        for _ in range(4):
            parent = torch.arange(parents, device=ids.device).repeat_interleave(per_parent)
            children, first = ids[parent].clone(), torch.full((wanted,), length, device=ids.device)
            for _ in range(min(swaps, length)):
                position = draw(length, wanted)
                token = tokens[parent, position, draw(tokens.shape[-1], wanted)]
                children[torch.arange(wanted, device=ids.device), position] = token
                first = torch.minimum(first, position)
            kept = self._admit(kept, parent, children, first, ids)
            if len(kept) >= wanted:
                break
        return self._as_proposals(kept[:wanted], length)

    def from_list(self, children: list[tuple[int, tuple[int, ...]]], parents: Ids) -> ChildProposals:
        """Make proposals from pairs: row of the parent prompt, token ids of the child (changed prompt).

        A child is dropped if its text, encoded inside the chat, has other token ids, if it equals its parent,
        or if it repeats another child. The first changed position of each child is found by comparison with
        its parent.

        Args:
            children: Row of the parent, and token ids of the child.
            parents: Token ids of the parents (the prompts that were changed).
        """
        length = parents.shape[1]
        rows = parents.tolist()
        alive = self._alive([ids for _, ids in children])
        kept: dict[tuple[int, ...], tuple[int, tuple[int, ...], int]] = {}
        for (parent, ids), ok in zip(children, alive, strict=True):
            changed = [i for i in range(length) if ids[i] != rows[parent][i]]
            if ok and changed:
                kept.setdefault(ids, (parent, ids, changed[0]))
        return self._as_proposals(list(kept.values()), length)

    def _admit(self, kept: list, parent: Tensor, children: Ids, first: Tensor, ids: Ids) -> list:
        """Add the surviving children that are neither in `kept` nor parents."""
        known = {row for _, row, _ in kept} | set(map(tuple, ids.tolist()))
        rows = [tuple(row) for row in children.tolist()]
        alive = self._alive(rows)
        for who, row, position, ok in zip(parent.tolist(), rows, first.tolist(), alive, strict=True):
            if ok and row not in known:
                known.add(row)
                kept.append((who, row, position))
        return kept

    def _surviving(self, prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [prompt for prompt, ok in zip(prompts, self._alive(prompts), strict=True) if ok]

    def _alive(self, prompts: list[tuple[int, ...]]) -> list[bool]:
        """Whether each prompt has allowed tokens at all positions and keeps its ids inside the whole text."""
        fit = [self._in_lexicon(ids) for ids in prompts]
        survive = iter(
            all_survive(
                self.scorer.runner,
                self.scorer.contexts,
                [ids for ids, ok in zip(prompts, fit, strict=True) if ok],
            )
        )
        return [ok and next(survive) for ok in fit]

    def _as_proposals(self, kept: list[tuple[int, tuple[int, ...], int]], length: int) -> ChildProposals:
        ids = torch.tensor([row for _, row, _ in kept], dtype=torch.long).reshape(-1, length)
        parent = torch.tensor([who for who, _, _ in kept], dtype=torch.long)
        return ChildProposals(
            ids, parent, torch.tensor([position for _, _, position in kept], dtype=torch.long)
        )
