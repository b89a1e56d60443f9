"""One attribution problem: a model, a prompt, contexts, targets; and the two ways to score prompts on it.

1. `scores`: any number of token sequences in the slot, exactly, without a graph.
2. `embedded`: the prompt given as embeddings, with a graph, for the gradient estimators.
Both run plain passes padded on the right, only as deep as the targets need, and read at each context's
decision token; answers of several tokens are read whole, at the positions that predict them.
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
    """Sequences ready to run.

    Ids padded on the right, where each one's decision token and prompt are, their answers, and how long each
    is (after the decision token: answer tokens).
    """

    ids: Int[Tensor, "batch pos"]
    layout: TokenLayout
    answers: AnswerTable
    length: Int[Tensor, " batch"]


@dataclass(frozen=True)
class AttributionProblem:
    """What every estimator is given. batch_tokens: tokens run at a time."""

    runner: Runner
    prompt: Ids
    contexts: Contexts
    targets: AttributionTargets
    seed: int = 0
    batch_tokens: int = 8192

    @cached_property
    def with_prompt(self) -> Float[np.ndarray, "context target"]:
        """Scores with the whole prompt."""
        return self.scores([self.prompt])[0]

    @cached_property
    def without_prompt(self) -> Float[np.ndarray, "context target"]:
        """Scores of the bare questions: no prompt and no slot."""
        return self.scores([None])[0]

    @cached_property
    def branched(self) -> AttributionProblem:
        """The problem with each context's answer branches in its place where the targets need them (`answer_tokens`).

        Means over them are means over the contexts, and every row reads its part of the answer. For
        estimators that look at rows.
        """
        return replace(self, contexts=self.contexts.branched) if self.targets.needs_final else self

    def scores(self, prompts: Sequence[Ids | None]) -> Float[np.ndarray, "prompt context target"]:
        """Float64 scores of every prompt in every context; None is "no prompt". An empty prompt leaves an empty slot."""
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
        """Scores of the contexts from those of their branches; UserError where one is no finite number."""
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
        """Scores with the prompt given as what it adds to the residual stream, for the contexts with these indices."""
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
        """Scores of rows that start from these residuals before block `start`, after which all targets must be read.

        Edits that are set act and find the layout.
        """
        with self.runner.placed(rows.layout), self.runner.capture(self.targets.sites) as caught:
            last, _ = self.runner.run(resid, start, self.targets.depth(self.runner.shape.n_layers))
        stream = last if self.targets.needs_final else None
        return self.targets.score(
            Readout.of(self.runner, caught, stream, rows.layout.decision, rows.answers, range(len(resid)))
        )

    def rows(self, contexts: Sequence[Context], prompts: Sequence[Ids | None]) -> ScoredRows:
        """Contexts, each with a prompt of its own in the slot."""
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
        """Indices of contexts for a gradient, in batches that stay within a quarter of batch_tokens when each is run `copies` times."""
        contexts = self.branched.contexts
        each = len(contexts) // len(self.contexts)
        yield from self._batches(
            [copies * each * len(c.sequence(self.prompt)) for c in contexts[::each]], share=4
        )

    def prompt_embeddings(self) -> Float[Tensor, "context prompt_pos d_model"]:
        """Embeddings of the prompt's tokens in the residual stream, at their true positions in each context."""
        embedded = []
        for context in self.contexts:
            ids = torch.tensor([self.prompt], device=self.runner.device)
            with torch.no_grad():
                embedded.append(self.runner.embed(ids, offset=len(context.prefix_ids))[0].float())
        return torch.stack(embedded)

    def baseline_embeddings(self, token: int | None = None) -> Float[Tensor, "context prompt_pos d_model"]:
        """The prompt's positions filled with one token's embedding, or with the mean embedding of all tokens that a prompt may hold."""
        table = self.runner.embeddings().detach()
        neutral = (
            table[token].float()
            if token is not None
            else _mean_row(table, allowed_ids(self.runner).nonzero()[:, 0])
        )
        own = table[torch.tensor(self.prompt, device=table.device)].float()
        return self.prompt_embeddings() - own + neutral

    def read(self, site: Site, prompts: Sequence[Ids | None]) -> Float[Tensor, "context d_model"]:
        """Float32 activations at the decision token, context i with prompts[i], in the order of the contexts."""
        found: list[Tensor | None] = [None] * len(self.contexts)
        for batch in self._batches([len(c.ids(p)) for c, p in zip(self.contexts, prompts, strict=True)]):
            rows = self.rows([self.contexts[i] for i in batch], [prompts[i] for i in batch])
            read = self.runner.read(rows.ids, [site], rows.layout.decision)[site]
            for i, activation in zip(batch, read, strict=True):
                found[i] = activation
        return torch.stack([activation for activation in found if activation is not None])

    def _batches(self, lengths: Sequence[int], share: int = 1) -> Iterator[list[int]]:
        """Indices sorted by length, cut so that rows x longest stays within batch_tokens / share (one row at least)."""
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
    """Float32 mean of some rows, a few thousand at a time: a vocabulary of 152k tokens would take a gigabyte at once."""
    total = torch.zeros(table.shape[1], dtype=torch.float64, device="cpu")
    for some in rows.split(8192):
        total += table[some.to(table.device)].float().sum(dim=0).cpu().double()
    return (total / len(rows)).float().to(table.device)
