"""Interface of a search method: its first population, the proposed children and the selected prompts."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from workbench.errors import UserError
from workbench.prompt_tokens import encode_prompt
from workbench.registry import Registry
from workbench.search.elite_selection import CanSurvive, elites, ladder, pareto_frontier
from workbench.search.scored_prompts import ChildProposals, Ids, ScoredPrompts
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.toolkit import SearchToolkit


class SearchMethod(BaseModel):
    """Base class of search methods; scoring and the archive are done by the engine (`search`).

    By default the population has one elite per fluency weight and starts from random prompts.

    Attributes:
        length: Prompt tokens (the largest number if prompts have different lengths).
        population: Number of parents, which is also the number of fluency weights.
        children: Proposals per parent and step.
        fluency_low: Lowest weight of the cross-entropy, in objective units per nat.
        fluency_high: Highest weight of the cross-entropy, in objective units per nat.
        start_text: A prompt to start from; None: random prompts.
        distinct: Keep no prompt twice.
        uses_gradient: Class attribute: a step takes gradients (for cost estimates).
        keeps_one_prompt: Class attribute: the population is one prompt with all children (a study then gives
            it the children of all parents).
        any_length: Class attribute: prompts have different lengths.

    Example:
        >>> isinstance(wb.EPO(length=6), wb.SearchMethod)
        True
    """

    uses_gradient: ClassVar[bool] = True
    keeps_one_prompt: ClassVar[bool] = False
    any_length: ClassVar[bool] = False

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(default=8, ge=1, le=100_000)
    population: int = Field(default=8, ge=1, le=1_000_000)
    children: int = Field(default=32, ge=1, le=1_000_000)
    fluency_low: float = Field(default=0.02, gt=0)
    fluency_high: float = Field(default=2.0, gt=0)
    start_text: str | None = None
    distinct: bool = True

    @property
    def name(self) -> str:
        """Name of the method in lower case, as in study files."""
        return type(self).__name__.lower()

    @property
    def weights(self) -> tuple[float, ...]:
        """The fluency weights (objective units per nat), one for each member of the population."""
        return ladder(self.fluency_low, self.fluency_high, self.population)

    def start(self, bench: SearchToolkit) -> Ids:
        """Return the first population: the start text (if any) and random prompts."""
        return self.with_start_text(bench, bench.random_prompts(self.population, self.length))

    @property
    def typical_length(self) -> int:
        """Number of tokens of a typical prompt, by which costs are converted to model calls."""
        return self.length

    def step(
        self, bench: SearchToolkit, population: Ids, archive: ScoredPrompts | None, step: int
    ) -> tuple[ScoredPrompts, Ids, int]:
        """Run one step of the search.

        By default: run the parents, propose children, score parents and children on the same contexts, learn
        from the scores, and select. Methods whose prompts have different lengths override this.

        Args:
            bench: The search's toolkit.
            population: The parents.
            archive: The frontier so far; None at the first step.
            step: Number of the step, from 0.

        Returns:
            The scored prompts, the next population, and the number of scored children.
        """
        prepared = bench.scorer.prepare(population)
        proposals = self.propose(bench, prepared, step)
        parents, children = bench.scorer.score_children(
            prepared, proposals, CanSurvive(self.weights, archive)
        )
        self.learn(bench, prepared, proposals, parents, children)
        pool = parents.join(children)
        return pool, self.survivors(bench, pool, step).ids, len(proposals)

    def archive(self, bench: SearchToolkit, pool: ScoredPrompts) -> ScoredPrompts:
        """Return the scored prompts to keep for the result: by default the Pareto frontier of `pool`."""
        return pareto_frontier(pool)

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """Return warnings about the result, one line each; called once, after the last step."""
        return ()

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children of the population.

        Args:
            bench: The search's toolkit.
            prepared: The parents with their log-probabilities and caches.
            step: Number of the step, from 0.
        """
        raise NotImplementedError

    def learn(
        self,
        bench: SearchToolkit,
        prepared: PreparedParents,
        proposals: ChildProposals,
        parents: ScoredPrompts,
        children: ScoredPrompts,
    ) -> None:
        """Learn from the scores of a step; by default nothing.

        Knowledge for later steps must be stored in `bench.memory`, which checkpoints save.

        Args:
            bench: The search's toolkit.
            prepared: The parents with their log-probabilities and caches.
            proposals: The children as proposed.
            parents: The parents' scores.
            children: The children's scores.
        """

    def survivors(self, bench: SearchToolkit, pool: ScoredPrompts, step: int) -> ScoredPrompts:
        """Select the next population from parents and children: by default one elite per fluency weight."""
        return elites(pool, self.weights, self.distinct)

    def with_start_text(self, bench: SearchToolkit, ids: Ids) -> Ids:
        """Replace the first prompt by the start text, if there is one; UserError if its length differs."""
        if self.start_text is None:
            return ids
        start = encode_prompt(bench.scorer.runner, bench.scorer.contexts, self.start_text)
        if len(start) != self.length:
            raise UserError(f"the start text has {len(start)} tokens, the method's length is {self.length}")
        return torch.cat([torch.tensor([start], device=ids.device), ids[1:]])


#: Methods by the names that study files use; each file of `search/methods/` registers its own.
SEARCH_METHODS: Registry[type[SearchMethod]] = Registry("search method", "workbench.search.methods")
