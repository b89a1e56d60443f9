"""Measure the memory of a search step on the scorer that will run it (see `batch_size.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from workbench.search.scored_prompts import ChildProposals, Ids
from workbench.search.scoring.batch_size import LOGITS_PER_TOKEN, BatchSizePlan, plan_batch_size
from workbench.search.scoring.log_prob_table import WHOLE
from workbench.search.scoring.scorer import Scorer


class ScorerSample:
    """Small batches of a scorer, with which the memory of a search step is measured.

    They use the questions with the longest chats, as few as fill one batch.

    Args:
        scorer: The search's scorer.
        length: Tokens of a prompt.
    """

    def __init__(self, scorer: Scorer, length: int) -> None:
        self.scorer, self.length = scorer, length
        self.longest = sorted(scorer.contexts, key=lambda c: len(c.sequence(())), reverse=True)
        self.suffix = max(len(c.after_prompt) for c in self.longest)
        #: Tokens of one prompt with its suffix.
        self.unit = length + self.suffix
        #: Whether some prompts run once for several contexts.
        self.shared = not all(group.joined for group in scorer.groups)

    def few(self, tokens: int) -> tuple[Scorer, Ids, int]:
        """Make a scorer on as few questions as fill a batch, and prompts that fill it.

        Args:
            tokens: Tokens per batch.

        Returns:
            The scorer, token ids of the prompts, and the number of tokens in one batch.
        """
        whole, length, runner = self.scorer, self.length, self.scorer.runner
        some = replace(whole.contexts, items=tuple(self.longest[: tokens // self.unit if self.shared else 1]))
        fluent = -(-len(some) * whole.prefixes.n_fluent // len(whole.contexts)) if self.shared else 1
        exact = replace(whole.optimizations, halving=0.0)
        scorer = Scorer(runner, whole.objective, some, exact, tokens, fluent)
        scorer.chunk.gradient_tokens = tokens
        n = scorer.passes.rows_at_once(scorer.groups[0], length, tokens)
        ids = torch.arange(n * length, device=runner.device).reshape(n, length) % runner.shape.d_vocab
        contexts = scorer.passes.context_chunks(scorer.groups[0], n, length, tokens)[0]
        return scorer, ids, n * len(contexts) * self.suffix if self.shared else n * self.unit

    def forward(self, tokens: int) -> tuple[int, Callable[[], object]]:
        """Prepare a batch without gradients for a memory measurement.

        Args:
            tokens: Largest number of tokens of the batch.

        Returns:
            The actual number of tokens, and a function that scores changed prompts in a batch of this size.
        """
        scorer, ids, run = self.few(tokens)
        parents, position = ids[:1].clone(), min(1, self.length - 1)
        ids[:, :position] = parents[0, :position]
        rows = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        return run, lambda: scorer.score_children(
            scorer.prepare(parents), ChildProposals(ids, rows, rows + position)
        )

    def gradient(self, tokens: int) -> tuple[int, Callable[[], object]]:
        """Prepare a batch with gradients for a memory measurement.

        Args:
            tokens: Largest number of tokens of the batch.

        Returns:
            The actual number of tokens, and a function that computes the objective's gradient in this batch.
        """
        scorer, ids, run = self.few(tokens)
        return run, lambda: scorer.gradients(ids, weights=torch.ones(len(ids), device=ids.device))


def set_batch_size(
    scorer: Scorer, length: int, population: int = 1, children: int = 0
) -> BatchSizePlan | None:
    """Measure the memory of a search step, and set the scorer's batch size that fits into the free memory.

    Small batches of a search step run for this; they are not counted in the search's cost.

    Args:
        scorer: The search's scorer.
        length: Tokens of a prompt.
        population: Number of prompts that a step changes (parents).
        children: Number of changed prompts per step, whose residuals are kept in memory.

    Returns:
        The plan; None, with the batch size unchanged, if the device's memory cannot be read.
    """
    sample, runner = ScorerSample(scorer, length), scorer.runner
    shape, counted = runner.shape, dict(vars(runner.meter))
    most_fluent = max(len(group.prefixes) for group in scorer.prefixes.fluent if group)
    number = torch.finfo(runner.dtype).bits // 8
    tails = number * children * (length + 1) // 2 * shape.d_model * scorer.prefixes.n_fluent
    table = population * length * shape.d_vocab
    kept = tails + (4 * (table - table // max(1, population)) if table <= WHOLE else 0)
    # Above this number of tokens a batch's logits grow with its tokens; below it, one row is computed.
    unit_of_logits = length * shape.d_vocab // LOGITS_PER_TOKEN
    plan = plan_batch_size(
        sample.forward,
        sample.gradient,
        max(sample.unit, unit_of_logits),
        sample.unit,
        runner.device,
        population * max(sample.unit, most_fluent * length),
        kept,
    )
    vars(runner.meter).update(counted)
    if plan is not None:
        scorer.chunk.tokens, scorer.chunk.gradient_tokens = plan.chunk.tokens, plan.chunk.gradient_tokens
    return plan
