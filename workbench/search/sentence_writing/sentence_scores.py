"""Store the sentences that a search scored, and fit the models that are learned from them."""

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

#: Rank correlation of the objective with the log-odds, over scored sentences, below which a warning is given.
_AGREES = 0.3
#: Largest fraction of a candidate's words that another candidate chosen in the same step may have.
ALIKE = 0.75


@dataclass(frozen=True)
class SentenceScores:
    """All sentences that a search scored, with the models that predict scores from them.

    The models use a sentence's words and its residuals at half the model's depth. All data are in
    `bench.memory`, which checkpoints save.

    Attributes:
        bench: The search's tools, such as its scorer, random generator and memory.
        method: The search's settings.
        bank: The search's candidate words.
    """

    bench: SearchToolkit
    method: SentenceSettings
    bank: WordBank

    def remember(self, scored: ScoredPrompts, screened: ScreenedSentences) -> None:
        """Store prompts with their scores and screening measures; the predicting models are fitted to them.

        Args:
            scored: The scored prompts, on any device.
            screened: The prompts' screening measures (such as their cross-entropy), in the same order.
        """
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
        """Return the token ids of every prompt scored so far."""
        return as_prompts(self.bench.memory["ids"]) if "ids" in self.bench.memory else []

    def good_prompts(self) -> set[Prompt]:
        """Return the scored prompts that keep all limits of the search, as token ids.

        The limits are on cross-entropies and on the log-odds that a sentence describes an evil assistant.
        """
        prompts = self.prompts()
        return {prompts[i] for i in self.good().nonzero()[:, 0].tolist()}

    def unlike_first(self, prompts: Sequence[Prompt]) -> list[int]:
        """Order prompts so that those that differ in their words come first, and return their indices.

        Going through the prompts, one counts as different if it shares at most three quarters of its words
        with each different one before it.

        Args:
            prompts: Token ids of the prompts, best first.
        """
        bags, unlike = [set(self.bank.words.of(prompt)) for prompt in prompts], []  # type: ignore[var-annotated]
        for i, words in enumerate(bags):
            if all(len(words & bags[j]) <= ALIKE * len(words) for j in unlike):
                unlike.append(i)
        return unlike + [i for i in range(len(prompts)) if i not in set(unlike)]

    def disagreement(self, scorer: Scorer, n: int = 24) -> list[str]:
        """Warn if the model's answers do not follow the objective.

        The objective and the log-odds of the matching answer (the one that shows the persona) are compared by
        rank correlation, over `n` scored sentences from the best to the worst.

        Args:
            scorer: Scorer on the few questions that a step uses.
            n: Number of sentences.

        Returns:
            One warning, or an empty list.
        """
        memory, device = self.bench.memory, self.bench.scorer.runner.device
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

    def differentiate(self, scorer: Scorer, prompts: Sequence[Prompt]) -> None:
        """Store the gradient of the objective at the embeddings, averaged over prompts and positions.

        Args:
            scorer: Scorer on the few questions that a step uses.
            prompts: Token ids of the prompts at which the gradient is taken.
        """
        device = self.bench.scorer.runner.device
        slopes = [scorer.gradients(as_ids([prompt], device)).mean((0, 1)) for prompt in prompts]
        self.bench.memory["slope"] = torch.stack(slopes).mean(0).cpu()

    def fit(self, probe: bool | None = None) -> WordEffectModel:
        """Fit the model that predicts a sentence's score from its words and its residuals.

        The residuals are those at half the model's depth, averaged over tokens.

        Args:
            probe: Whether residuals are used; None for the search's setting. False gives effects of words
                alone, with which the model's writing is biased.
        """
        memory, words = self.bench.memory, self.with_slope()
        bags = [words.of(ids) for ids in self.prompts()]
        return fit_effects(
            words, bags, memory["residuals"], memory["scores"], self.method.probe if probe is None else probe
        )

    def predicted(
        self, prompts: Sequence[Prompt], means: Float[Tensor, "prompt d_model"]
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted scores of prompts, and their standard deviations.

        Args:
            prompts: Token ids of the prompts.
            means: Residuals of each prompt at half the model's depth, averaged over its tokens.
        """
        return self.fit().predict([self.bank.words.of(ids) for ids in prompts], means)

    def with_slope(self) -> CandidateWords:
        """Return the candidate words with the gain in objective that the gradient predicts for each.

        The gains are standardised (mean 0, standard deviation 1 over the words); they are 0 without a
        gradient.
        """
        words = self.bank.words
        if "slope" not in self.bench.memory:
            return words
        raw = (
            self.bench.scorer.runner.embeddings()[words.tokens].float().cpu()
            @ self.bench.memory["slope"].float()
        )
        return replace(words, slope=(raw - raw.mean()) / raw.std().clamp(min=1e-9))

    def word_effects(self) -> tuple[Float[Tensor, " word"], Float[Tensor, " word"]]:
        """Return the learned effect of each candidate word on the score, and its standard deviation.

        Both are in standard deviations of the scores. They come from the model of words. For words that were
        tried in a template, the score predicted from the template's residuals at half the model's depth is
        added.
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
        """Return the best scored prompts that keep the search's limits and differ in their words.

        At most half of a prompt's words are in any better prompt of the result. The number of prompts is the
        search's `population`.
        """
        return as_ids(self._diverse(self.good(), self.method.population), self.bench.scorer.runner.device)

    def strongest(self) -> list[Prompt]:
        """Return the best scored prompts that differ in their words, even if they break the search's limits.

        A short sentence with a strong word is unlikely text, but can become fluent if words are added.
        """
        return self._diverse(torch.ones_like(self.good()), self.method.population)

    def _diverse(self, among: Tensor, n: int) -> list[Prompt]:
        """Return the n best of some scored prompts, each with at most half of its words in any better one."""
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
        """Return a mask of the scored prompts that keep all limits of the search.

        The limits are on cross-entropies and on the log-odds that a sentence describes an evil assistant.
        """
        return self.keeps(self.bench.memory["measures"])

    def keeps(self, measures: Float[Tensor, "prompt measure"]) -> Bool[Tensor, " prompt"]:
        """Return a mask of the prompts whose screening measures keep all limits of the search.

        Args:
            measures: Five values in nats per prompt, such as its cross-entropy (see `ScreenedSentences`).
        """
        return (measures <= self.bench.memory["limits"]).all(1)
