"""Propose a step's candidates in a search over sentences: written, edited, filled and joined sentences."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models import Site
from workbench.search.scored_prompts import as_prompts
from workbench.search.sentence_writing.restarts import left_out, update_restart, without_left_out
from workbench.search.sentence_writing.search_inputs import direction_of
from workbench.search.sentence_writing.sentence_edits import SentenceEdits
from workbench.search.sentence_writing.sentence_form import split_sentences
from workbench.search.sentence_writing.sentence_scores import SentenceScores
from workbench.search.sentence_writing.sentence_writer import SentenceDraft, SentenceWriter
from workbench.search.sentence_writing.slot_text import Prompt, SlotText

#: Number of best prompts from which pairs are joined.
_PARENTS = 24


@dataclass(frozen=True)
class SentenceProposals:
    """Propose the candidate sentences of each search step, which are then screened and scored.

    Words with a large learned effect on the score are preferred. Sentences that the model writes are also
    steered along the difference between the mean residuals of the best sentences and of all.
    """

    slot: SlotText
    writer: SentenceWriter
    learned: SentenceScores

    def write(self, drafts: Sequence[SentenceDraft], site: Site | None = None) -> list[Prompt]:
        """Let the model write sentences, and return the token ids of those that ended.

        Args:
            drafts: Beginning, word bias and steering vector of each sentence.
            site: Site at which the steering vectors are added; at half the model's depth when None.
        """
        return [
            ids
            for ids in self.writer.write(
                drafts,
                self.learned.method.length,
                self.learned.method.top_k,
                self.learned.bench.generator,
                site,
            )
            if ids
        ]

    def admitted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that are new, are whole sentences, and keep their token ids inside the chat.

        Their text, encoded inside the chat of every question, must have the same token ids again.

        Args:
            prompts: Token ids of the prompts.
        """
        return self.slot.admitted(prompts, set(self.learned.prompts()))

    def pushes(self, opening: Prompt, n: int) -> list[Tensor]:
        """Return `n` steering vectors along the objective's direction in the residual stream.

        Their norms are 0.1 to 0.3 times the norm of the residual stream. The list is empty if the objective
        has neither a projection nor an SAE latent, which define its direction.

        Args:
            opening: Token ids of a sentence's beginning; the residual stream's norm is measured at the last
                of them.
            n: Number of vectors.
        """
        found = direction_of(self.learned.bench.scorer.objective)
        if found is None:
            return []
        site, vector = found
        self.learned.bench.tools["push_site"] = site
        scale = 0.1 * self.writer.norm(opening, site)
        return [(1 + i % 3) * scale * vector / vector.norm() for i in range(n)]

    def candidates(self, elites: list[Prompt], step: int) -> list[Prompt]:
        """Propose the candidates of a search step, as token ids.

        They are sentences that the model writes, edits of the best prompts, templates filled with words, and
        good prompts joined in pairs. The model writes only every `write_every` steps.

        Args:
            elites: The best prompts so far.
            step: Number of the step.
        """
        effects, weights = self.learned.word_effects(), self.learned.method.bias
        drawn = partial(self._drawn, *effects)
        if self._restarted(step, effects[0]):
            elites = as_prompts(self.learned.elites())
        edits = SentenceEdits(
            self.learned.bank, lambda: drawn(weights[edits.pick(len(weights))]), self.learned.bench.generator
        )
        strongest = self.learned.strongest()
        writes = (
            self.learned.method.written
            if step % self.learned.method.write_every == 1 or self.learned.method.write_every == 1
            else 0
        )
        written = self.write(
            [
                self._draft(drawn(weights[i % len(weights)]), elites, strongest, edits, i)
                for i in range(writes)
            ]
        )
        edited = edits.edited(
            elites, self.learned.method.edited - self.learned.method.edited // 3
        ) + edits.edited(strongest, self.learned.method.edited // 3)
        edited += edits.swapped(elites, self.learned.method.swapped)
        templates = self.slot.form.slots
        filled = [
            self.learned.bank.fill(templates[(step + i) % len(templates)], drawn(weights[i % len(weights)]))
            for i in range(self.learned.method.filled if templates else 0)
        ]
        return written + edited + filled + (self._joined() if self.learned.method.joins else [])

    def _restarted(self, step: int, effects: Float[Tensor, " word"]) -> bool:
        """Exclude the strongest word of the best prompt if there was no gain for some steps (`restarts.py`).

        Returns:
            Whether a word is excluded now.
        """
        scores = self.learned.bench.memory["scores"].masked_fill(~self.learned.good(), -torch.inf)
        best = int(scores.argmax())
        update_restart(
            self.learned.bench.memory,
            step,
            float(scores[best]),
            self.learned.bank.words.of(self.learned.prompts()[best]),
            effects,
        )
        return len(left_out(self.learned.bench.memory)) > 0

    def _drawn(self, mean: Tensor, spread: Tensor, weight: float) -> Float[Tensor, " word"]:
        """Draw every word's effect, in standard deviations, times `weight`; -inf for excluded words."""
        drawn = weight * (
            mean
            + self.learned.method.explore
            * spread
            * torch.randn(len(mean), generator=self.learned.bench.generator)
        )
        drawn[left_out(self.learned.bench.memory)] = -torch.inf
        return drawn

    def _draft(
        self, drawn: Tensor, elites: list[Prompt], strongest: list[Prompt], edits: SentenceEdits, number: int
    ) -> SentenceDraft:
        """Make the draft of a sentence to write.

        It begins with a general opening, with an elite up to some word, or with a whole strong sentence (to
        which the model adds a second one). The draft is biased by `drawn` and steered towards what good
        sentences have in common.
        """
        short = [prompt for prompt in strongest if len(prompt) <= self.learned.method.length // 2]
        if short and number % 2:
            opening = short[edits.pick(len(short))]
        elif elites and number % 4:
            opening = edits.beginning(elites[edits.pick(len(elites))])
        else:
            openings = [self.slot.encode(text) for text in self.slot.form.openings]
            opening = openings[edits.pick(len(openings))]
        bias = torch.zeros(len(self.writer.usable))
        bias[self.learned.bank.words.tokens] = drawn.clamp(-8, 8)
        return SentenceDraft(
            opening, bias.to(self.learned.bench.scorer.runner.device), self._towards_the_best(number)
        )

    def _towards_the_best(self, number: int) -> Tensor | None:
        """Return 0, 1 or 2 times the difference between the mean residuals of the best eighth and of all."""
        times = number % 3
        if not self.learned.method.steering or not times:
            return None
        scores, residuals = self.learned.bench.memory["scores"], self.learned.bench.memory["residuals"]
        best = scores.topk(max(1, len(scores) // 8)).indices
        return times * (residuals[best].mean(0) - residuals.mean(0))

    def without_a_sentence(self, prompts: Sequence[Prompt], seen: Container[Prompt]) -> list[Prompt]:
        """Return prompts of several sentences without one of them, in every way.

        Args:
            prompts: Token ids of the prompts.
            seen: Token ids of prompts that are not returned.
        """
        parts = [split_sentences(self.slot.text(prompt)) for prompt in prompts]
        texts = [
            " ".join(part[:i] + part[i + 1 :]) for part in parts if len(part) > 1 for i in range(len(part))
        ]
        return self.slot.admitted([self.slot.encode(text) for text in texts], seen)

    def shortened(self, elites: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts of several sentences without one of them, if the result is new and keeps the limits.

        The limits are those of the search, such as its largest cross-entropy. A sentence that only lowers the
        mean cross-entropy is padding.

        Args:
            elites: Token ids of the best prompts.
        """
        prompts = self.without_a_sentence(elites, set(self.learned.prompts()))
        return [prompt for prompt, fits in zip(prompts, self._fit(prompts), strict=True) if fits]

    def _fit(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Whether each prompt keeps the limits."""
        return (
            self.learned.keeps(self.writer.screen(self.writer.read(prompts)).measures).tolist()
            if prompts
            else []
        )

    def _joined(self) -> list[Prompt]:
        """Join two good prompts: the pairs with the largest sum of scores that fit into the length."""
        scores, prompts = self.learned.bench.memory["scores"], self.learned.prompts()
        usable = without_left_out(
            self.learned.bench.memory, [self.learned.bank.words.of(prompt) for prompt in prompts]
        )
        best = (
            scores.masked_fill(~usable, -torch.inf)
            .argsort(descending=True, stable=True)[: min(_PARENTS, int(usable.sum()))]
            .tolist()
        )
        pairs = [
            (a, b)
            for a in best
            for b in best
            if a != b and len(prompts[a]) + len(prompts[b]) <= self.learned.method.length
        ]
        pairs.sort(key=lambda pair: -float(scores[list(pair)].sum()))
        texts = [f"{self.slot.text(prompts[a])} {self.slot.text(prompts[b])}" for a, b in pairs]
        seen = set(prompts)
        made = [
            ids
            for ids in (self.slot.encode(text) for text in texts if self.slot.form.accepts(text))
            if ids not in seen
        ]
        return made[: self.learned.method.joined]
