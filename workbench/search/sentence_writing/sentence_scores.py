"""The sentences that a search has scored, and what is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.objectives import answer_log_odds
from workbench.search.scored_prompts import Ids, ScoredPrompts, as_ids, as_prompts
from workbench.search.scoring.scorer import Scorer
from workbench.search.sentence_writing.restarts import without_left_out
from workbench.search.sentence_writing.sentence_settings import SentenceSettings
from workbench.search.sentence_writing.sentence_writer import ScreenedSentences
from workbench.search.sentence_writing.slot_text import Prompt
from workbench.search.sentence_writing.word_bank import WordBank
from workbench.search.sentence_writing.word_effect_model import CandidateWords, WordEffectModel, fit_effects
from workbench.search.toolkit import SearchToolkit
from workbench.statistics import spearman

#: Rank correlation of the objective with the log-odds, over scored sentences, below which the objective is
#: not to be trusted.
_AGREES = 0.3
#: The fraction of its words that a candidate may have in common with one already chosen in the same step.
ALIKE = 0.75


@dataclass(frozen=True)
class SentenceScores:
    """Scored sentences with their limits, and the models of words and half-depth residuals that are fitted to them.

    Everything is kept in `bench.memory`, which a checkpoint holds. scorer: on the step's contexts. bank: the
    candidate words.
    """

    bench: SearchToolkit
    method: SentenceSettings
    scorer: Scorer
    bank: WordBank

    def remember(self, scored: ScoredPrompts, screened: ScreenedSentences) -> None:
        """Adds scored prompts (any device) with what screening measured of them."""
        memory = self.bench.memory
        everything = ScoredPrompts(scored.ids.cpu(), scored.objective.cpu(), screened.cross_entropy)
        residuals, measures = screened.residuals, screened.measures
        if "ids" in memory:
            before = ScoredPrompts(memory["ids"], memory["scores"], memory["measures"][:, 0])
            everything = before.join(everything)
            residuals = torch.cat([memory["residuals"], residuals])
            measures = torch.cat([memory["measures"], measures])
        memory.update(ids=everything.ids, scores=everything.objective, residuals=residuals, measures=measures)

    def prompts(self) -> list[Prompt]:
        """Every prompt scored so far."""
        return as_prompts(self.bench.memory["ids"]) if "ids" in self.bench.memory else []

    def good_prompts(self) -> set[Prompt]:
        """Scored prompts that keep the limits."""
        prompts = self.prompts()
        return {prompts[i] for i in self.good().nonzero()[:, 0].tolist()}

    def unlike_first(self, prompts: Sequence[Prompt]) -> list[int]:
        """The places of prompts, those first that have at most three quarters of their words in common with each before them."""
        bags, unlike = [set(self.bank.words.of(prompt)) for prompt in prompts], []  # type: ignore[var-annotated]
        for i, words in enumerate(bags):
            if all(len(words & bags[j]) <= ALIKE * len(words) for j in unlike):
                unlike.append(i)
        return unlike + [i for i in range(len(prompts)) if i not in set(unlike)]

    def disagreement(self, n: int = 24) -> list[str]:
        """One line where the objective and the answers' log-odds disagree over n scored sentences, from the best to the worst."""
        memory, scorer, device = self.bench.memory, self.scorer, self.bench.scorer.runner.device
        order = memory["scores"].argsort(descending=True, stable=True)
        rows = order[torch.linspace(0, len(order) - 1, min(n, len(order))).round().long()]
        if len(rows) < 8:
            return []
        scored = self.prompts()
        prompts = [scored[i] for i in rows.tolist()]
        answers = Scorer(
            scorer.runner, answer_log_odds(), scorer.contexts, scorer.optimizations, scorer.chunk.tokens
        )
        moved = scorer.objective.sign * answers.objectives(as_ids(prompts, device)).cpu()
        r = spearman(memory["scores"][rows].numpy(), moved.numpy())
        quarter = len(rows) // 4
        best, rest = float(moved[:quarter].mean()), float(moved[quarter:].mean())
        if r >= _AGREES and best > rest:
            return []
        return [
            f"the search moves the direction, not the behaviour: over {len(rows)} scored sentences the objective's rank correlation with the "
            f"answers' log-odds is {r:+.2f}, and its best quarter moves them by {best - rest:+.2f} more than the rest "
            "(refit_direction fits one on what such sentences do)"
        ]

    def differentiate(self, prompts: Sequence[Prompt]) -> None:
        """The objective's gradient at the embeddings, mean over prompts and positions."""
        device = self.bench.scorer.runner.device
        slopes = [self.scorer.gradients(as_ids([prompt], device)).mean((0, 1)) for prompt in prompts]
        self.bench.memory["slope"] = torch.stack(slopes).mean(0).cpu()

    def fit(self, probe: bool | None = None) -> WordEffectModel:
        """What predicts scores: words and probe, or (probe=False) words alone, whose effects bias the writing."""
        memory, words = self.bench.memory, self.with_slope()
        bags = [words.of(ids) for ids in self.prompts()]
        return fit_effects(
            words, bags, memory["residuals"], memory["scores"], self.method.probe if probe is None else probe
        )

    def predicted(
        self, prompts: Sequence[Prompt], means: Float[Tensor, "prompt d_model"]
    ) -> tuple[Tensor, Tensor]:
        """Expected scores of prompts and their standard deviations."""
        return self.fit().predict([self.bank.words.of(ids) for ids in prompts], means)

    def with_slope(self) -> CandidateWords:
        """The candidate words with the gradient's prediction of each, standardised."""
        words = self.bank.words
        if "slope" not in self.bench.memory:
            return words
        raw = (
            self.bench.scorer.runner.embeddings()[words.tokens].float().cpu()
            @ self.bench.memory["slope"].float()
        )
        return replace(words, slope=(raw - raw.mean()) / raw.std().clamp(min=1e-9))

    def word_effects(self) -> tuple[Float[Tensor, " word"], Float[Tensor, " word"]]:
        """What each candidate word is expected to do and how sure that is, in standard deviations of the scores.

        The words' own model, and for the bank's words what half-depth residuals predict of them.
        """
        mean, spread = self.fit(probe=False).word_effects()
        bank = self.bank
        if self.method.probe and len(bank.places):
            model = self.fit()
            predicted, sd = model.predict([bank.words.of(ids) for ids in bank.prompts], bank.means)
            mean = mean.clone()
            mean[bank.places] += (predicted - predicted.mean()) / model.sd
            spread = spread.clone()
            spread[bank.places] = (sd / model.sd).minimum(spread[bank.places])
        return mean, spread

    def elites(self) -> Ids:
        """The best prompts that keep the limits, each with under half of its words in one before it."""
        return as_ids(self._diverse(self.good(), self.method.population), self.bench.scorer.runner.device)

    def strongest(self) -> list[Prompt]:
        """The best prompts whatever their cross-entropy: a strong word in too short a sentence can become fluent by what is added."""
        return self._diverse(torch.ones_like(self.good()), self.method.population)

    def _diverse(self, among: Tensor, n: int) -> list[Prompt]:
        """The n best of some scored prompts, each with at most half of its words in one before it."""
        prompts = self.prompts()
        among = among & without_left_out(
            self.bench.memory, [self.bank.words.of(prompt) for prompt in prompts]
        )
        order = (
            self.bench.memory["scores"]
            .masked_fill(~among, -torch.inf)
            .argsort(descending=True, stable=True)
            .tolist()
        )
        kept: list[Prompt] = []
        for row in order[: int(among.sum())]:
            words = set(self.bank.words.of(prompts[row]))
            if all(len(words & set(self.bank.words.of(other))) <= len(words) / 2 for other in kept):
                kept.append(prompts[row])
            if len(kept) == n:
                break
        return kept

    def good(self) -> Bool[Tensor, " prompt"]:
        """Scored prompts that keep the limits."""
        return self.keeps(self.bench.memory["measures"])

    def keeps(self, measures: Float[Tensor, "prompt measure"]) -> Bool[Tensor, " prompt"]:
        """Which screened prompts keep all limits."""
        return (measures <= self.bench.memory["limits"]).all(1)
