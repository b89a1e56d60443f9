"""Count token-layers, FLOPs and the largest batch of every stage of a study, as the code runs it.

The cost model of a search step: q tokens in a question, n in the prompt, t after the prompt, L layers, D of
them below the objective's site. A swap of one token re-runs half of the prompt on average, on its parent's
cache. A token-layer costs 2 x the block's weights plus its attention to the tokens before; a gradient costs
as much again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.attribution.attribute import CIRCUIT_CONTEXTS
from workbench.conditions import CONDITION_KINDS, STUDY_CONDITIONS, SearchRecipe
from workbench.conditions.neutral_text import NEUTRAL_SENTENCES
from workbench.directions import DIRECTION_METHODS, default_methods
from workbench.directions.layer_scan import HELD_OUT_ROWS
from workbench.models.loading import choose_dtype
from workbench.models.memory_estimate import LargestBatch
from workbench.models.model_sizes import ModelSizes
from workbench.search import SentenceSearch
from workbench.search.scoring.batch_size import LOGITS_PER_TOKEN
from workbench.study.data_sizes import DataSizes
from workbench.study.machine_speeds import MACHINES, MachineSpeed
from workbench.study.off_target_measures import PROSE
from workbench.study.stages.search import make_method
from workbench.study.study_settings import Study

#: Forward passes per context that the ledger needs in addition to removal.
LEDGER = 45
#: Names of the memory estimate's rows, one of which applies to each stage.
COLLECT, ANSWERS, AFTER_CACHE, GRADIENT = (
    "collect activations",
    "forced-choice answers",
    "score candidates after a cached prefix",
    "gradient of an objective",
)
#: Assumed length of a system text or of a written prompt in tokens.
SYSTEM_TEXT = 12
#: Cost of a part of a stage: token-layers, FLOPs, runs of one block, weights read.
Part = tuple[float, float, float, float]


@dataclass(frozen=True)
class StageTokens:
    """Numbers of tokens that one stage of a study would run in one batch if memory were unlimited.

    Attributes:
        forward: Tokens of a forward pass without gradients.
        length: Length of one sequence, including cached tokens.
        gradient: Tokens of a pass with gradients.
        gradient_blocks: Number of transformer blocks through which these gradients pass.
        cached: Tokens whose keys and values are cached at the same time.
        unembedded: Number of positions, per token of the forward pass, for which logits over the whole
            vocabulary are computed.
    """

    forward: float
    length: float
    gradient: float = 0.0
    gradient_blocks: float = 0.0
    cached: float = 0.0
    unembedded: float = 0.0

    def batch(self, most: int) -> LargestBatch:
        """Return the stage's largest batch under a limit on the number of tokens.

        Args:
            most: Largest number of tokens in a batch. Passes with gradients get a quarter of this; every
                batch has at least one sequence.
        """
        cut = lambda tokens, limit: min(tokens, max(self.length, limit)) / self.length  # noqa: E731
        positions = self.unembedded * cut(self.forward, most) * self.length
        return LargestBatch(
            cut(self.forward, most),
            self.length,
            cut(self.gradient, most // 4),
            self.gradient_blocks,
            self.cached,
            positions,
        )


@dataclass(frozen=True)
class StageCost:
    """Estimated cost of one stage of a study.

    Attributes:
        name: Name of the stage.
        token_layers: Sum over all passes of tokens times transformer blocks, forward and backward.
        flops: FLOPs of these passes and of the unembedding.
        memory: Name of the kind of pass that needs the most memory, which is a row of the memory estimate.
        tokens: Numbers of tokens in a batch without a limit.
        block_runs: Number of runs of one block on a batch of any size; a backward pass counts twice.
        weights_read: Number of weights that these runs and the unembedding read from memory.
    """

    name: str
    token_layers: float
    flops: float
    memory: str
    tokens: StageTokens = StageTokens(1, 1)
    block_runs: float = 0.0
    weights_read: float = 0.0

    def seconds(self, machine: MachineSpeed) -> float:
        """Estimate the seconds on a machine: arithmetic plus kernel launches plus reading of weights.

        Short runs are dominated by the last two terms.
        """
        read = self.weights_read * choose_dtype(machine.dtype).itemsize / machine.bandwidth
        return self.flops / machine.speed + self.block_runs * machine.launch + read


@dataclass(frozen=True)
class StageCounts:
    """Computes the cost of each stage of a study from the sizes of its model and data.

    Attributes:
        study: The settings.
        facts: Sizes of the model, such as parameters and layers.
        data: Numbers and lengths of the questions.
    """

    study: Study
    facts: ModelSizes
    data: DataSizes

    def stages(self) -> list[StageCost]:
        """Return the costs of all stages in order; loading is left out because its FLOPs are negligible."""
        found = [self._directions()]
        if self._latents:
            found.append(self._latents_stage())
        for recipe, names in self._recipes():
            found += [self._search(name, recipe) for name in names]
        return [*found, self._comparison(len(found)), self._attribution()]

    def _recipes(self) -> list[tuple[SearchRecipe, tuple[str, ...]]]:
        """Return how each condition of the study searches, with the names of its searches."""
        entries = [STUDY_CONDITIONS[name] for name in self.study.conditions]
        return [
            (e.search, e.searches(self.study))
            for e in entries
            if e.search and (self._latents or not e.search.needs_sae)
        ]

    @property
    def _latents(self) -> bool:
        """Whether the study has an SAE, as far as its settings say."""
        return self.study.sae != "none" and not (
            self.study.sae == "auto" and self.study.model.name != "organism"
        )

    def _cost(
        self,
        tokens: float,
        layers: float,
        keys: float,
        unembedded: float = 0.0,
        backward: bool = False,
        batches: float | None = None,
    ) -> Part:
        """Return token-layers and FLOPs as the runner's meter counts them, runs of a block, and weights read.

        `batches` is the number of batches. None means as many as `search.batch_tokens` requires, four times
        as many with gradients.
        """
        shape, times = self.facts.shape, 2 if backward else 1
        block = times * 2 * shape.block_parameters + (2 * times - 1) * 4 * keys * shape.n_heads * shape.d_head
        flops = tokens * layers * block + times * 2 * unembedded * shape.d_model * shape.d_vocab
        most = self.study.search.batch_tokens / (4 if backward else 1)
        runs = (batches or math.ceil(tokens / most)) * (3 if backward else 1) * layers
        calls = math.ceil(unembedded * shape.d_vocab / (LOGITS_PER_TOKEN * self.study.search.batch_tokens))
        read = runs * shape.block_parameters + times * calls * shape.d_model * shape.d_vocab
        return times * tokens * layers, flops, runs, read

    def _stage(self, name: str, parts: Sequence[Part], memory: str, tokens: StageTokens) -> StageCost:
        """Build the cost of a stage as the sum of its parts."""
        layers, flops, runs, read = (sum(part[i] for part in parts) for i in range(4))
        return StageCost(name, layers, flops, memory, tokens, runs, read)

    def _latents_stage(self) -> StageCost:
        tokens, layers = self.data.tokens, self.facts.shape.n_layers
        return self._stage(
            "latents",
            [self._cost(384 * tokens, layers, tokens, 384)],
            COLLECT,
            StageTokens(384 * tokens, tokens),
        )

    @property
    def _branches(self) -> int:
        """Number of rows of a question: one for letters and for two answers of one token, otherwise one per answer."""
        return 2 if self.data.answers > 2 else 1

    def _asked(self, questions: float, q: float) -> Part:
        """Count the pass that scores both answers of questions of q tokens.

        Letters need one row. Each of two whole answers has a row of its own, with half of the answers' tokens.
        """
        rows, own = questions * self._branches, self.data.answers / self._branches
        return self._cost(rows * (q + own - 1), self.facts.shape.n_layers, q, questions * self.data.answers)

    def _answering(self, questions: float, q: float) -> StageTokens:
        """Return the tokens of a batch of questions that are answered.

        Letters need two logits; a longer answer needs the normalizer of each position.
        """
        length = q + self.data.answers
        return StageTokens(
            questions * self._branches * length,
            length,
            unembedded=self.data.answers / length * (self._branches - 1),
        )

    def _directions(self) -> StageCost:
        s, shape, q = self.study.directions, self.facts.shape, self.data.asked + SYSTEM_TEXT
        top = max(s.layers) + 1 if s.layers else shape.n_layers
        kinds = {DIRECTION_METHODS[m].labels for m in s.methods or default_methods()}
        full = (
            s.rows * len({"choice", *(k for k in kinds if k == "choice_within")}) + (s.texts + 1) * s.contexts
        )
        pairs = (s.rows + min(s.rows, HELD_OUT_ROWS)) * len(kinds & {"answer", "response"})
        parts = [self._asked(full, q), self._cost(pairs * q, top, q)]
        return self._stage(
            "directions", parts, ANSWERS, self._answering(max(s.rows, (s.texts + 1) * s.contexts), q)
        )

    def _search(self, name: str, recipe: SearchRecipe) -> StageCost:
        """Count a search: per step, gradients of the parents, the children's objective, and cross-entropies.

        Cross-entropies are only computed for children that can survive.
        """
        study, s, shape = self.study, self.study.search, self.facts.shape
        method = make_method(study, recipe.method or s.method)
        n, parents = method.length, method.population
        alone = study.protocol.search_behind == "nothing" and not recipe.reads_answer
        contexts, t = (1, 0.0) if alone else (s.contexts, self.data.after_prompt)
        depth = shape.n_layers if recipe.reads_answer else self._depth()
        scored = contexts * (s.halving + (1 - s.halving) / 2) if 0 < s.halving < 1 else contexts
        children, keys = parents * method.children, self.data.tokens + n
        forked = study.slot == "system" and not alone
        each = n / 2 + scored * t if forked else scored * (n / 2 + t)
        own = n + contexts * t if forked else contexts * (n + t)
        parts = [
            self._cost((children * each + parents * own), depth, keys),
            self._cost(parents * n, shape.n_layers - depth, keys, parents * n),
        ]
        parts.append(self._cost(children / 2 * n / 2, shape.n_layers - depth, keys, children / 2 * n / 2))
        if isinstance(method, SentenceSearch):
            parts = self._sentence_step(method, depth, min(contexts, method.step_contexts), t)
        elif method.uses_gradient:
            active = min(contexts, getattr(method, "gradient_contexts", contexts))
            parts.append(
                self._cost(
                    parents * (n + active * t if forked else active * (n + t)), depth, keys, backward=True
                )
            )
            parts.append(self._cost(parents * n, shape.n_layers, keys, parents * n, backward=True))
        steps = self._steps(sum(p[0] for p in parts), sum(p[1] for p in parts))
        whole = contexts * (
            n + (self.data.tokens if not alone else 0)
        )  # neutral prompts are read without shared prefixes
        once = self._cost(s.neutral * whole, depth, keys, s.neutral * n)
        every = [(steps * a, steps * b, steps * c, steps * d) for a, b, c, d in parts]
        takes = method.gradient if isinstance(method, SentenceSearch) else method.uses_gradient
        own, active = (
            contexts * self._branches * (n + t),
            min(contexts, getattr(method, "gradient_contexts", contexts)),
        )
        fluent, left = min(4, 1 if forked else contexts), self.data.tokens - t
        layers = shape.n_layers
        slopes, upper = parents * (n + t) * active * self._branches, parents * n * fluent
        tokens = StageTokens(
            parents * method.children * own,
            keys,
            slopes,
            depth + upper * (layers - depth) / slopes,
            (1 if forked else contexts) * left * depth / layers
            + fluent * left * (1 - depth / layers)
            + parents * own * depth / layers,
            n / keys,
        )
        return self._stage(f"search {name}", [*every, once], GRADIENT if takes else AFTER_CACHE, tokens)

    def _sentence_step(
        self, method: SentenceSearch, depth: float, contexts: float, after_prompt: float
    ) -> list[Part]:
        """Count one step of a search over sentences.

        Candidates are read to half depth, the likeliest are run on, some are written token by token, and the
        best are scored with their questions.
        """
        n, layers = method.typical_length, self.facts.shape.n_layers
        read, likely = (
            (method.edited + method.filled + method.joined) * n + 2 * method.near_reads,
            3 * method.children * n,
        )
        written = method.written / method.write_every * n
        return [
            self._cost(read, layers / 2, n),
            self._cost(likely, layers / 2, n, likely),
            self._cost(written, layers, n, written),
            self._cost(method.children * contexts * (n + after_prompt), depth, n + after_prompt),
        ]

    def _steps(self, token_layers: float, flops: float) -> float:
        """Return the number of steps that the budget allows, from the cost of one step.

        A model call is one question run through all blocks.
        """
        budget, call = self.study.search.budget, self.data.tokens * self.facts.shape.n_layers
        limits = [
            budget.steps,
            budget.model_calls and budget.model_calls * call / token_layers,
            budget.flops and budget.flops / flops,
            budget.seconds and budget.seconds * MACHINES[0].speed / flops,
        ]
        return min((limit for limit in limits if limit), default=60.0 * MACHINES[0].speed / flops)

    def _depth(self) -> float:
        layers = self.study.directions.layers
        return (sorted(layers)[len(layers) // 2] + 1) if layers else self.facts.shape.n_layers / 2

    def _comparison(self, stages_before: int) -> StageCost:
        """Count the choice on selection questions and the comparison on test questions.

        Selection has 8 candidates per frontier, the written prompts, and 7 steering strengths with their
        guard. Then every condition answers the test questions.
        """
        study, q = (
            self.study,
            self.data.asked + max(SYSTEM_TEXT, make_method(self.study, self.study.search.method).length),
        )
        select, test = self._split(2, study.data.selection_items), self._split(3, study.data.test_items)
        frontiers = max(0, stages_before - 1)
        steering = sum(CONDITION_KINDS[STUDY_CONDITIONS[c].kind].group == "inside" for c in study.conditions)
        rows = select * (
            8 * frontiers + self.data.written * ("manual" in study.conditions)
        ) + 7 * steering * (select + min(32, select) + 60)
        several = {"random_direction": study.random_directions, "neutral_text": len(NEUTRAL_SENTENCES)}
        several |= dict.fromkeys(("random_tokens", "random_text"), study.random_prompts)
        conditions = 1 + sum(several.get(name, 1) for name in study.conditions)
        asked = rows + conditions * (test + study.collateral.items)
        prose = conditions * sum(map(len, PROSE)) / 4
        layers = self.facts.shape.n_layers
        parts = [self._asked(asked, q), self._cost(prose, layers, 40, prose)]
        return self._stage("comparison", parts, ANSWERS, self._answering(max(test, select), q))

    def _split(self, index: int, limit: int | None) -> int:
        items = round(self.data.items * self.study.data.fractions[index])
        return self.data.orders * (items if limit is None else min(items, limit))

    def _attribution(self) -> StageCost:
        """Count token removal, a gradient per target, and LEDGER passes for pairs, mediation and doses.

        LEDGER was counted on real runs. The circuit has the passes that `attribution.circuit` documents;
        cards read texts.
        """
        n, a = make_method(self.study, self.study.search.method).length, self.study.attribution
        tokens, layers = self.data.asked + n, self.facts.shape.n_layers
        removal = self._asked(a.contexts * (n + 2 + LEDGER), tokens)
        gradient = self._cost(
            a.contexts * tokens * (2 + self.study.latents * self._latents), layers, tokens, backward=True
        )
        passes = 2 * (a.circuit + 66) if a.circuit else 0
        some = min(a.contexts, CIRCUIT_CONTEXTS)
        circuit = self._cost(some * passes * tokens, layers, tokens, some * passes)
        cards = self._cost(a.texts * tokens if self._latents and a.cards else 0, layers, tokens)
        parts = removal, gradient, circuit, cards
        takes = bool(a.circuit or set(a.estimators) - {"removal"} or self._latents)
        asked = self._answering(a.contexts * n, tokens)
        slopes = replace(asked, gradient=asked.forward / n, gradient_blocks=layers)
        return self._stage("attribution", parts, GRADIENT if takes else ANSWERS, slopes)
