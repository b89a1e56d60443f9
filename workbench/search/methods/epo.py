"""EPO, evolutionary prompt optimisation.

Thompson, Straznickas & Sklar, "Fluent dreaming for language models", arXiv 2402.01702.

1. Keep one prompt for each of T log-spaced fluency weights.
2. Differentiate objective - weight * cross-entropy with respect to the prompt's one-hot tokens: through the
   embeddings, and through the tokens' role as targets (which gives their log-probability given the left
   context).
3. Draw children of every parent: a random position, and a token drawn uniformly from the k tokens with the
   largest derivative there.
4. Score all children; each weight keeps the best of all parents and children.
5. Every `restart_every` steps, keep only the best prompt at one random weight, and continue from it.

Differences from the published code: the gradient is taken at the embeddings' output (the same derivative at
half the cost); parents are distinct (`distinct=False` is as published); all prompts are scored on the same
contexts.
"""

from __future__ import annotations

import torch
from pydantic import Field

from workbench.search.scored_prompts import ChildProposals, ScoredPrompts
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.toolkit import SearchToolkit


@SEARCH_METHODS.register("epo")
class EPO(SearchMethod):
    """Evolutionary prompt optimisation (Thompson et al. 2024): token swaps chosen by the gradient.

    For each of several fluency weights the prompt with the largest objective - weight x cross-entropy is
    kept. The options are those of `SearchMethod` and the following.

    Attributes:
        top_k: At each position, new tokens are drawn from the `top_k` with the largest derivative.
        restart_every: Steps between restarts, which keep only one of the prompts; 0 for no restart.
        gradient_contexts: Number of questions over which each gradient is averaged; steps take the questions
            in turn.

    Example:
        >>> method = wb.EPO(length=4, population=2, children=4)
        >>> found = wb.search(model, -wb.answer_log_odds(), contexts, method, wb.Budget(steps=2))
        >>> found.method
        'epo'
    """

    top_k: int = Field(default=256, ge=1)
    restart_every: int = Field(default=50, ge=0)
    gradient_contexts: int = Field(default=8, ge=1)

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children: copies of the parents with one token swapped for one of large derivative.

        The derivative is that of objective - fluency weight x cross-entropy, with the parent's own fluency
        weight.

        Args:
            bench: The search's tools, such as its scorer and random generator.
            prepared: The parents (the current prompts) with their log-probabilities.
            step: Number of the step, from 0.
        """
        weights = self.weights[: len(prepared.ids)]
        of_each = torch.tensor(weights, device=prepared.ids.device)
        slope = bench.scorer.gradients(
            prepared.ids, self.gradient_contexts, step * self.gradient_contexts, of_each
        )
        best = bench.best_swaps(
            prepared, slope, tuple(weight / self.length for weight in weights), self.top_k
        )
        return bench.swap(prepared.on_host, best, self.children)

    def survivors(self, bench: SearchToolkit, pool: ScoredPrompts, step: int) -> ScoredPrompts:
        """Select the next parents: for each fluency weight the prompt with the best weighted score.

        The weighted score is objective - weight x cross-entropy. At a restart only one of these prompts is
        kept, drawn at random.

        Args:
            bench: The search's tools, such as its random generator.
            pool: The scored parents and children.
            step: Number of the step, from 0.
        """
        kept = super().survivors(bench, pool, step)
        if self.restart_every and (step + 1) % self.restart_every == 0:
            rung = int(torch.randint(len(kept), (1,), generator=bench.generator))
            return kept.pick(torch.tensor([rung], device=pool.ids.device))
        return kept
