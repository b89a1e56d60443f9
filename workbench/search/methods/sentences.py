"""Search over whole sentences that the model writes; its activations bias the writing and screen the results.

1. *Start*: the model continues general openings in the slot. Half of the sentences are written while the
   residual stream is pushed along the objective (steering, arXiv 2308.10248). Some are scored.
2. *Words*: words of a bank are put into templates with one gap ("Be {adjective}.", "You are a {noun}."),
   which run through half of the blocks only and are ranked by what the scores so far teach. The best that
   differ from each other are scored, and the bank grows by the neighbours of its best words. The model itself
   classifies words as adjectives, nouns and verbs (`word_kinds.py`).
3. *Score* on one question of each answer side, exactly. *Learn* from all scores so far the effects of words,
   and the scores that residuals at half the model's depth predict (`word_effect_model.py`).
4. *Write* more sentences, with Thompson draws of the word effects added to the logits of tokens that begin a
   word (similar to AutoDAN, arXiv 2310.15140, and BEAST, arXiv 2402.15570, whose candidates also come from
   the model's top tokens; twists learned from scores: arXiv 2404.17546). *Continue* after a strong sentence.
   *Fill* templates. *Edit* the best: replace, link ("and w"), delete, join two (mutations of FLRT, arXiv
   2407.17447, on whole words), and try all words of one kind at one place.
5. *Screen* all by form, predicted score and cross-entropy in one pass without any question. Score the best,
   and return to 3.
6. When the search ends, the best dozen are scored on all search contexts.

Every fraction is a field, so an ablation is a matter of settings. docs/sentences.md measures the benefit of
each.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from workbench.errors import UserError
from workbench.search.elite_selection import first_copies
from workbench.search.scored_prompts import Ids, ScoredPrompts, as_ids, as_prompts
from workbench.search.search_method import SEARCH_METHODS
from workbench.search.sentence_writing.sentence_settings import SentenceSettings
from workbench.search.sentence_writing.sentence_tools import SentenceTools
from workbench.search.sentence_writing.sentence_writer import SentenceDraft
from workbench.search.toolkit import SearchToolkit

#: Number of candidates in the result.
_FINALISTS = 12


@SEARCH_METHODS.register("sentences")
class SentenceSearch(SentenceSettings):
    """Search over whole sentences that the model writes (docs/sentences.md).

    The options are those of `SearchMethod` and the following. The bank is a list of single words that are
    tried in sentence templates; the probe predicts scores from residuals at half the model's depth, without
    any question.

    Attributes:
        length: Largest number of tokens of a prompt.
        population: Number of elites that are edited.
        children: Sentences scored per step.
        max_cross_entropy: Limit of a prompt's mean cross-entropy, nats per token.
        margin: Distance in nats that sentences keep below that limit, because a search exploits the measure
            that it sees.
        max_small_word: Limit for a single function word or punctuation mark, nats: above it a sentence is
            broken or was cut off.
        max_word: Limit for any word, nats, summed over its tokens: above it a word does not fit its place. If
            no sentence of the start keeps all limits, they are raised to what the quarter with the lowest
            cross-entropy keeps.
        max_ending: Limit for a mark that ends a sentence, nats: an unlikely mark means that words are missing
            ("You are a precautionary.").
        max_evil: Limit of the log-odds, nats, that a sentence says how an evil assistant should behave and
            not how a good one should (2.3: ten to one; "You are an honest villain." works strongly against
            sycophancy); used only if the objective suppresses, None for no limit.
        languages: Names of data in `sentence_frames.yaml`.
        openings: Your own openings, in place of the file's.
        sampled_openings: Number of further openings, which the model itself begins with.
        sentences: Largest number of sentences in one prompt.
        first: Number of sentences written for the start.
        first_scored: How many of them are scored; then the `children` sentences of the others that the probe
            predicts to be best are scored.
        slot_words: Number of templates with one word that are scored at the start.
        explored: Number of templates with a word of the bank that are scored in every later step.
        slot_reads: Number of words with which the bank begins.
        near_reads: Number of words, similar to the best ones, that are added to the bank in each step.
        written: Candidates per step before screening: sentences that the model writes.
        write_every: Steps between two rounds of writing.
        edited: Candidates per step: edits of elites.
        swapped: Candidates per step: all words that fit in one place of one elite.
        filled: Candidates per step: templates filled with words.
        joined: Candidates per step: pairs of good prompts.
        step_contexts: Number of contexts on which a step scores sentences.
        gradient: Use the objective's gradient as a predictor of word effects.
        steering: Steer half of the start's sentences along the objective.
        probe: Predict scores from residuals at half the model's depth.
        joins: Join pairs of good prompts.
        bias: Nats added to the logits of a word whose effect is one standard deviation better; the values
            take turns.
        explore: Weight of the posterior's spread in draws of effects and scores.
        top_k: Number of likeliest tokens from which the model's own text is drawn.

    Example:
        >>> method = wb.SentenceSearch(length=16, max_cross_entropy=5.0)
        >>> method.name, method.typical_length
        ('sentences', 12)
    """

    any_length: ClassVar[bool] = True

    @property
    @override
    def name(self) -> str:
        return "sentences"

    @property
    @override
    def typical_length(self) -> int:
        return min(12, self.length)

    # ---- start ------------------------------------------------------------------------------------------------------

    def start(self, bench: SearchToolkit) -> Ids:
        """Let the model write sentences after general openings; they are scored in the first step."""
        tools = SentenceTools.of(bench, self)
        openings = tools.openings(self.sampled_openings)
        pushes = tools.proposals.pushes(openings[0], self.first // 2) if self.steering else []
        pushed = [pushes[i // 2] if i % 2 and i // 2 < len(pushes) else None for i in range(self.first)]
        drafts = [SentenceDraft(openings[i % len(openings)], push=push) for i, push in enumerate(pushed)]
        written = tools.write(drafts, bench.tools.get("push_site"))
        if self.start_text is not None:
            written.insert(0, tools.slot.encode(self.start_text))
        kept = list(dict.fromkeys(prompt for prompt in written if prompt))
        if not kept:
            raise UserError(
                "the model wrote no whole sentence in this slot: give other openings, or more tokens of length"
            )
        return as_ids(kept, bench.scorer.runner.device)

    def step(
        self, bench: SearchToolkit, population: Ids, archive: ScoredPrompts | None, step: int
    ) -> tuple[ScoredPrompts, Ids, int]:
        """Run one step of the search.

        The first step scores the start's sentences and templates. Later steps learn, write, edit, screen and
        score. Arguments and result are those of `SearchMethod.step`.
        """
        tools = SentenceTools.of(bench, self)
        if step == 0:
            scored = tools.first_scores(as_prompts(population))
        else:
            scored = tools.scored_step(as_prompts(population), step)
        elites = tools.learned.elites()
        return scored, elites, len(scored)

    def archive(self, bench: SearchToolkit, pool: ScoredPrompts) -> ScoredPrompts:
        """Return the dozen best sentences that keep the limits, preferring sentences unlike each other."""
        tools = SentenceTools.of(bench, self)
        good, prompts = tools.learned.good_prompts(), as_prompts(pool.ids)
        fluent = pool.pick(
            torch.tensor(
                [i for i, prompt in enumerate(prompts) if prompt in good],
                dtype=torch.long,
                device=pool.ids.device,
            )
        )
        fluent = fluent.pick(first_copies(fluent).nonzero()[:, 0])
        fluent = fluent.pick(fluent.objective.argsort(descending=True, stable=True))
        return fluent.pick(
            torch.tensor(
                tools.learned.unlike_first(as_prompts(fluent.ids))[:_FINALISTS],
                dtype=torch.long,
                device=pool.ids.device,
            )
        )

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """Return warnings: a limit was raised at the start, or behaviour does not follow the objective."""
        limits, found = bench.memory["limits"], []
        limit = float(limits[0])
        if (
            limits[:4]
            > torch.tensor([self.max_cross_entropy, self.max_small_word, self.max_word, self.max_ending])
        ).any():
            found.append(
                f"no sentence of the start kept the limit of {self.max_cross_entropy:.2f} nats a token: the limit was {limit:.2f}"
            )
        if not bench.scorer.objective.needs_final:
            found += SentenceTools.of(bench, self).learned.disagreement()
        return tuple(found)
