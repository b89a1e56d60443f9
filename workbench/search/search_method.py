"""What a search method is: how it starts, which children it proposes, which prompts it selects."""

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
    """A search method as a value: what it proposes; scoring, selection and archive are the engine's.

    The defaults here are a population of elites along fluency weights, started from random prompts.

    Attributes:
        length: Prompt tokens (the greatest number where prompts have different lengths).
        population: Fluency weights = parents kept.
        children: Proposals per parent and step.
        fluency_low: Lowest weight of the cross-entropy, in objective units per nat.
        fluency_high: Highest weight.
        start_text: A prompt to start from; None: random prompts.
        distinct: Keep no prompt twice.
        uses_gradient: Class attribute: a step takes gradients (for cost estimates).
        keeps_one_prompt: Class attribute: the population is one prompt with all children (a study then gives
            it every parent's children).
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
        """Lower-case name, as in the table of methods."""
        return type(self).__name__.lower()

    @property
    def weights(self) -> tuple[float, ...]:
        """The fluency weights, one for each member of the population."""
        return ladder(self.fluency_low, self.fluency_high, self.population)

    def start(self, bench: SearchToolkit) -> Ids:
        """The first population: the start text (if any) next to random prompts."""
        return self.with_start_text(bench, bench.random_prompts(self.population, self.length))

    @property
    def typical_length(self) -> int:
        """Tokens of a usual prompt: what one model call is counted for."""
        return self.length

    def step(
        self, bench: SearchToolkit, population: Ids, archive: ScoredPrompts | None, step: int
    ) -> tuple[ScoredPrompts, Ids, int]:
        """One step: what was scored, the next population, and how many children were scored.

        Here: run the parents, propose, score parents and children on the same contexts, learn, select. A
        method of prompts of different lengths has its own.
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
        """What of everything scored is kept to be reported: the frontier."""
        return pareto_frontier(pool)

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """Warnings for the result's readers, one line each; called once, after the last step."""
        return ()

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Children of the population for one step."""
        raise NotImplementedError

    def learn(
        self,
        bench: SearchToolkit,
        prepared: PreparedParents,
        proposals: ChildProposals,
        parents: ScoredPrompts,
        children: ScoredPrompts,
    ) -> None:
        """Told every step's scores; what is kept for later steps goes into `bench.memory`."""

    def survivors(self, bench: SearchToolkit, pool: ScoredPrompts, step: int) -> ScoredPrompts:
        """The next population out of parents and children."""
        return elites(pool, self.weights, self.distinct)

    def with_start_text(self, bench: SearchToolkit, ids: Ids) -> Ids:
        """The prompts with the start text (if any) in the first place. UserError if it has another length."""
        if self.start_text is None:
            return ids
        start = encode_prompt(bench.scorer.runner, bench.scorer.contexts, self.start_text)
        if len(start) != self.length:
            raise UserError(f"the start text has {len(start)} tokens, the method's length is {self.length}")
        return torch.cat([torch.tensor([start], device=ids.device), ids[1:]])


#: Methods by the names that study files use; each file of `search/methods/` registers its own.
SEARCH_METHODS: Registry[type[SearchMethod]] = Registry("search method", "workbench.search.methods")
