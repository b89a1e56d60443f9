"""An attribution problem: a model, a prompt, contexts and targets, with two ways to score prompts.

1. `scores` takes any number of prompts as token ids. It is exact and keeps no autograd graph.
2. `embedded` takes the prompt as embeddings and keeps the graph, for the estimators that use gradients.
Both run right-padded forward passes, only as deep as the targets need, and read the targets at each context's
decision token (the last token before the answer). Answers of several tokens are scored on all their tokens,
at the positions that predict them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from workbench.answer_tokens import AnswerTable
from workbench.attribution.attribution_targets import AttributionTargets
from workbench.contexts import Context, Contexts
from workbench.errors import UserError
from workbench.models import Runner, Site, TokenLayout, not_finite, pad_right
from workbench.objectives import Readout
from workbench.prompt_tokens import allowed_ids

Ids = tuple[int, ...]


@dataclass(frozen=True)
class ScoredRows:
    """A right-padded batch of token sequences, ready for a forward pass.

    Attributes:
        ids: Token ids, padded on the right.
        layout: Positions of the prompt and of the decision token (the last one before the answer) in each
            row.
        answers: Token ids of each row's two answers.
        length: Length of each row without padding, in tokens. Tokens after the decision token are the
            answer's.
    """

    ids: Int[Tensor, "batch pos"]
    layout: TokenLayout
    answers: AnswerTable
    length: Int[Tensor, " batch"]


@dataclass(frozen=True)
class AttributionProblem:
    """The input of all attribution estimators: a model, a prompt, questions and quantities to explain.

    Attributes:
        runner: The model.
        prompt: Token ids of the prompt; effects are estimated for each of them.
        contexts: Questions in their chat template, each with a slot for the prompt.
        targets: Quantities whose change by the tokens is measured, such as the answer's log-odds.
        seed: Seed of the estimators that sample.
        batch_tokens: Largest number of tokens in one forward pass.
    """

    runner: Runner
    prompt: Ids
    contexts: Contexts
    targets: AttributionTargets
    seed: int = 0
    batch_tokens: int = 8192

    @cached_property
    def with_prompt(self) -> Float[np.ndarray, "context target"]:
        """Score of every target in every context with the whole prompt, in the target's unit."""
        return self.scores([self.prompt])[0]

    @cached_property
    def without_prompt(self) -> Float[np.ndarray, "context target"]:
        """Score of every target in every context without the prompt.

        The bare question is used: the chat template has no empty message where the prompt was.
        """
        return self.scores([None])[0]

    @cached_property
    def branched(self) -> AttributionProblem:
        """The same problem with one context for each token sequence that must be run to score an answer.

        The log-odds of answers of several tokens are read from several sequences per question, called its
        branches; their mean is the question's score. A problem whose targets are all read before the last
        block needs no branches and is returned unchanged. Estimators that work on single rows of a batch use
        this property.
        """
        return replace(self, contexts=self.contexts.branched) if self.targets.needs_final else self

    def scores(self, prompts: Sequence[Ids | None]) -> Float[np.ndarray, "prompt context target"]:
        """Score every prompt in every context with exact forward passes, without gradients.

        Args:
            prompts: Prompts as token ids. None means the bare question; an empty prompt leaves the prompt's
                place in the chat template empty.

        Returns:
            Float64 score of each target for each prompt and context, in the target's unit.

        Raises:
            UserError: A score is not finite.
        """
        contexts = self.branched.contexts
        jobs = [(p, c) for p in range(len(prompts)) for c in range(len(contexts))]
        lengths = [len(contexts[c].sequence(prompts[p])) for p, c in jobs]
        found = np.zeros((len(prompts), len(contexts), len(self.targets.items)))
        for batch in self._batches(lengths):
            chosen = [jobs[i] for i in batch]
            rows = self.rows([contexts[c] for _, c in chosen], [prompts[p] for p, _ in chosen])
            with torch.no_grad():
                scored = self.run(rows, self.runner.embed(rows.ids))
            for (p, c), values in zip(chosen, scored.double().cpu().numpy(), strict=True):
                found[p, c] = values
        return self.over_branches(found)

    def over_branches(
        self, found: Float[np.ndarray, "prompt branch target"]
    ) -> Float[np.ndarray, "prompt context target"]:
        """Average scores of the token sequences of one context into one score per context.

        An answer of several tokens is scored on several sequences per context, called branches.

        Args:
            found: Score of every branch; the branches of one context follow each other.

        Returns:
            Scores of the contexts.

        Raises:
            UserError: A score is not finite.
        """
        bad = np.argwhere(~np.isfinite(found))
        if len(bad):
            context = self.branched.contexts[int(bad[0][1])]
            where = not_finite(self.runner, context.sequence(self.prompt))
            raise UserError(
                f"the question {context.item.question[:60]!r} has a score that is no finite number: {where}"
            )
        apart = rearrange(
            found,
            "prompt (context branch) target -> prompt context branch target",
            context=len(self.contexts),
        )
        return apart.mean(axis=2)

    def embedded(
        self, members: Sequence[int], embeddings: Float[Tensor, "batch prompt_pos d_model"]
    ) -> Float[Tensor, "batch target"]:
        """Score the prompt, given as embeddings, in some of the contexts; the result is differentiable.

        Args:
            members: Indices of the contexts.
            embeddings: Vectors that replace the prompt tokens' embeddings in the residual stream, one row per
                index in `members`.

        Returns:
            Scores, each in its target's unit.
        """
        each = len(self.branched.contexts) // len(self.contexts)
        contexts = [self.branched.contexts[each * i + k] for i in members for k in range(each)]
        rows = self.rows(contexts, [self.prompt] * len(contexts))
        with torch.no_grad():
            resid = self.runner.embed(rows.ids)
        batch = torch.arange(len(contexts), device=resid.device)[:, None]
        places = rows.layout.prompt_start[:, None] + torch.arange(len(self.prompt), device=resid.device)
        whole = resid.index_put((batch, places), embeddings.repeat_interleave(each, 0).to(resid.dtype))
        return rearrange(
            self.run(rows, whole), "(member branch) target -> member branch target", branch=each
        ).mean(1)

    def run(
        self, rows: ScoredRows, resid: Float[Tensor, "batch pos d_model"], start: int = 0
    ) -> Float[Tensor, "batch target"]:
        """Run the blocks from `start` on and compute the targets.

        Hooks that change activations (such as patches or steering) and are set on the runner apply in this
        pass.

        Args:
            rows: Layout and answers of the batch.
            resid: Residual stream before block `start`.
            start: Index of the first block to run; the targets' sites must be at this block or later ones.

        Returns:
            Scores, each in its target's unit.
        """
        with self.runner.placed(rows.layout), self.runner.capture(self.targets.sites) as caught:
            last, _ = self.runner.run(resid, start, self.targets.depth(self.runner.shape.n_layers))
        stream = last if self.targets.needs_final else None
        return self.targets.score(
            Readout.of(self.runner, caught, stream, rows.layout.decision, rows.answers, range(len(resid)))
        )

    def rows(self, contexts: Sequence[Context], prompts: Sequence[Ids | None]) -> ScoredRows:
        """Build a padded batch in which each context has its own prompt in its slot.

        Args:
            contexts: Questions in their chat template.
            prompts: Prompt of each context as token ids; None means the bare question.
        """
        device = self.runner.device
        sequences = [c.sequence(p) for c, p in zip(contexts, prompts, strict=True)]
        start = torch.tensor(
            [0 if p is None else len(c.prefix_ids) for c, p in zip(contexts, prompts, strict=True)],
            device=device,
        )
        stop = start + torch.tensor([0 if p is None else len(p) for p in prompts], device=device)
        decision = torch.tensor(
            [len(s) - len(c.tail) - 1 for s, c in zip(sequences, contexts, strict=True)], device=device
        )
        length = torch.tensor([len(s) for s in sequences], device=device)
        return ScoredRows(
            pad_right(sequences).to(device),
            TokenLayout(start, stop, decision),
            AnswerTable(contexts, device),
            length,
        )

    def context_batches(self, copies: int = 1) -> Iterator[list[int]]:
        """Yield the indices of all contexts in batches that are small enough for passes with gradients.

        Args:
            copies: How many times each context is run at once. A batch has at most a quarter of
                `batch_tokens` tokens, copies included.
        """
        contexts = self.branched.contexts
        each = len(contexts) // len(self.contexts)
        yield from self._batches(
            [copies * each * len(c.sequence(self.prompt)) for c in contexts[::each]], share=4
        )

    def prompt_embeddings(self) -> Float[Tensor, "context prompt_pos d_model"]:
        """Return the embeddings of the prompt's tokens in each context.

        They include position embeddings, so they depend on where the prompt begins in the context.
        """
        embedded = []
        for context in self.contexts:
            ids = torch.tensor([self.prompt], device=self.runner.device)
            with torch.no_grad():
                embedded.append(self.runner.embed(ids, offset=len(context.prefix_ids))[0].float())
        return torch.stack(embedded)

    def baseline_embeddings(self, token: int | None = None) -> Float[Tensor, "context prompt_pos d_model"]:
        """Return the embeddings of a neutral baseline prompt, of the same length and at the same positions.

        Args:
            token: Token whose embedding is used at every position. None: the mean embedding of all tokens
                that a prompt may contain.
        """
        table = self.runner.embeddings().detach()
        neutral = (
            table[token].float()
            if token is not None
            else _mean_row(table, allowed_ids(self.runner).nonzero()[:, 0])
        )
        own = table[torch.tensor(self.prompt, device=table.device)].float()
        return self.prompt_embeddings() - own + neutral

    def read(self, site: Site, prompts: Sequence[Ids | None]) -> Float[Tensor, "context d_model"]:
        """Return the activations at the last token before the answer, for each context with its own prompt.

        Args:
            site: Layer and hook at which to read.
            prompts: One prompt per context as token ids; None is the bare question.
        """
        found: list[Tensor | None] = [None] * len(self.contexts)
        for batch in self._batches([len(c.ids(p)) for c, p in zip(self.contexts, prompts, strict=True)]):
            rows = self.rows([self.contexts[i] for i in batch], [prompts[i] for i in batch])
            read = self.runner.read(rows.ids, [site], rows.layout.decision)[site]
            for i, activation in zip(batch, read, strict=True):
                found[i] = activation
        return torch.stack([activation for activation in found if activation is not None])

    def _batches(self, lengths: Sequence[int], share: int = 1) -> Iterator[list[int]]:
        """Yield indices sorted by length, in batches of at most batch_tokens / share padded tokens.

        A batch has at least one row, even if that row is longer.
        """
        batch: list[int] = []
        at_most = self.runner.at_most(self.batch_tokens) // share
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[i] > at_most:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def _mean_row(table: Float[Tensor, "token d_model"], rows: Int[Tensor, " row"]) -> Float[Tensor, " d_model"]:
    """Return the float32 mean of some rows of an embedding table, without copying all rows at once.

    A vocabulary of 152k tokens would take a gigabyte in one copy.
    """
    total = torch.zeros(table.shape[1], dtype=torch.float64, device="cpu")
    for some in rows.split(8192):
        total += table[some.to(table.device)].float().sum(dim=0).cpu().double()
    return (total / len(rows)).float().to(table.device)
