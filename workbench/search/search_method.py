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
    """Base class of search methods: a method proposes prompts, and `search` scores them and keeps the best.

    In each step a method makes *children* (changed copies) of its current prompts, the *parents*. By default
    it starts from random prompts and keeps, for each of several fluency weights, the prompt with the largest
    objective - weight x cross-entropy.

    Attributes:
        length: Tokens of a prompt (the largest number if prompts have different lengths).
        population: Number of parents, which is also the number of fluency weights.
        children: Children per parent and step.
        fluency_low: Lowest weight of the cross-entropy, in objective units per nat.
        fluency_high: Highest weight of the cross-entropy, in objective units per nat.
        start_text: A prompt to start from; None to start from random prompts.
        distinct: Whether copies of a prompt are avoided among the parents.
        uses_gradient: Class attribute: whether a step takes gradients (for cost estimates).
        keeps_one_prompt: Class attribute: whether there is only one parent. A study then gives it as many
            children as other methods have for all parents together.
        any_length: Class attribute: whether prompts have different lengths.

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
        """The factors of the cross-entropy (objective units per nat), one for each kept prompt."""
        return ladder(self.fluency_low, self.fluency_high, self.population)

    def start(self, bench: SearchToolkit) -> Ids:
        """Return the prompts of the first step: the start text (if any) and random prompts.

        Args:
            bench: The search's tools, such as its scorer, allowed tokens and random generator.
        """
        return self.with_start_text(bench, bench.random_prompts(self.population, self.length))

    @property
    def typical_length(self) -> int:
        """Number of tokens of a typical prompt; with it, costs in tokens are converted to model calls."""
        return self.length

    def step(
        self, bench: SearchToolkit, population: Ids, archive: ScoredPrompts | None, step: int
    ) -> tuple[ScoredPrompts, Ids, int]:
        """Run one step of the search.

        By default: run the parents (the current prompts), propose children (changed prompts), score both on
        the same questions, learn from the scores, and select the next parents. Methods whose prompts have
        different lengths override this.

        Args:
            bench: The search's tools, such as its scorer, allowed tokens and random generator.
            population: Token ids of the parents.
            archive: The Pareto frontier of all prompts scored so far; None at the first step.
            step: Number of the step, from 0.

        Returns:
            All prompts scored in the step, the token ids of the next parents, and the number of scored
            children.
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
        """Return the scored prompts to keep for the search's result: by default their Pareto frontier.

        Args:
            bench: The search's tools, such as its scorer, allowed tokens and random generator.
            pool: Scored prompts.
        """
        return pareto_frontier(pool)

    def final(self, bench: SearchToolkit, archive: ScoredPrompts) -> Ids:
        """Return the token ids of the prompts in the search's result, which are scored in full at the end.

        By default they are the archived ones. `search` calls this once, after the last step.

        Args:
            bench: The search's tools.
            archive: The prompts that `archive` kept.
        """
        return archive.ids

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """Return warnings about the search's result, one line each.

        `search` calls this once, after the last step.

        Args:
            bench: The search's tools, such as its scorer and what the method has learned.
        """
        return ()

    def propose(self, bench: SearchToolkit, prepared: PreparedParents, step: int) -> ChildProposals:
        """Propose children: changed copies of the current prompts (the parents), to be scored.

        Args:
            bench: The search's tools, such as its scorer, allowed tokens and random generator.
            prepared: The parents, with log-probabilities of all tokens at their positions and with KV caches.
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
        """Learn from the scores of a step, for later steps; by default nothing is learned.

        What is learned must be stored in `bench.memory`, which checkpoints save.

        Args:
            bench: The search's tools, such as its scorer, allowed tokens and random generator.
            prepared: The parents (the prompts of this step), with log-probabilities and KV caches.
            proposals: The children (changed copies of the parents) as `propose` returned them.
            parents: The parents' scores.
            children: The children's scores.
        """

    def survivors(self, bench: SearchToolkit, pool: ScoredPrompts, step: int) -> ScoredPrompts:
        """Select the parents of the next step from the scored parents and children of this step.

        By default the prompt with the largest objective - weight x cross-entropy is selected for each fluency
        weight.

        Args:
            bench: The search's tools, such as its random generator.
            pool: The scored parents and children.
            step: Number of the step, from 0.
        """
        return elites(pool, self.weights, self.distinct)

    def with_start_text(self, bench: SearchToolkit, ids: Ids) -> Ids:
        """Replace the first of the starting prompts by the method's start text, if there is one.

        UserError if the start text does not have `length` tokens.

        Args:
            bench: The search's tools, such as its scorer, whose contexts determine the tokens of the text.
            ids: Token ids of the starting prompts.
        """
        if self.start_text is None:
            return ids
        start = encode_prompt(bench.scorer.runner, bench.scorer.contexts, self.start_text)
        if len(start) != self.length:
            raise UserError(f"the start text has {len(start)} tokens, the method's length is {self.length}")
        return torch.cat([torch.tensor([start], device=ids.device), ids[1:]])


#: Methods by the names that study files use; each file of `search/methods/` registers its own.
SEARCH_METHODS: Registry[type[SearchMethod]] = Registry("search method", "workbench.search.methods")
