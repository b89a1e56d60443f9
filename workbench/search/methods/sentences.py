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
6. When the search ends, the best dozen are scored on all search contexts, the best four of them also without
   each of their sentences.

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
#: Number of best candidates that are also tried without each of their sentences.
_SHORTENED = 4


@SEARCH_METHODS.register("sentences")
class SentenceSearch(SentenceSettings):
    """Search over whole sentences that the model writes, edits and fills into templates (docs/sentences.md).

    Two devices save model calls. The *bank* is a list of single words, each tried in a sentence template with
    one gap ("Be {adjective}."). The *probe* is a linear model that predicts a sentence's score from its
    residuals at half the model's depth, without any question. The options are those of `SearchMethod` and the
    following.

    Attributes:
        length: Largest number of tokens of a prompt.
        population: Number of best sentences (elites) that each step edits.
        children: Sentences scored per step.
        max_cross_entropy: Largest mean cross-entropy of a prompt, nats per token.
        margin: Distance in nats that the search keeps below that limit, because a search exploits the measure
            that it sees.
        max_small_word: Largest -log p of a single function word or punctuation mark, nats: above it a
            sentence is broken or was cut off.
        max_word: Largest -log p of any word, nats, summed over its tokens: above it a word does not fit its
            place. If no sentence of the start keeps all limits, they are raised to what the quarter of
            sentences with the lowest cross-entropy keeps.
        max_ending: Largest -log p of a mark that ends a sentence, nats: an unlikely mark means that words are
            missing ("You are a precautionary.").
        max_evil: Largest log-odds, nats, that a sentence describes an evil assistant and not a good one (2.3:
            ten to one). It prevents prompts such as "You are an honest villain.", which works strongly
            against sycophancy. Used only if the objective suppresses the persona; None for no limit.
        languages: Languages (en, de, ...) of `sentence_frames.yaml`, which has their openings, templates and
            function words.
        openings: Your own beginnings of sentences, in place of the file's.
        sampled_openings: Number of further beginnings, which the model writes.
        sentences: Largest number of sentences in one prompt.
        first: Number of sentences that the model writes at the start.
        first_scored: How many of these are scored. Of the others, the `children` sentences are scored that
            the probe predicts to be best.
        slot_words: Number of templates filled with one word that are scored at the start.
        explored: Number of templates filled with a word of the bank that are scored in every later step.
        slot_reads: Number of words in the bank at the start.
        near_reads: Number of words, similar to the bank's best ones, that each step adds to the bank.
        written: Sentences per step that the model writes, before screening.
        write_every: Steps from one writing of sentences by the model to the next.
        edited: Edits of the best sentences per step, before screening.
        swapped: Versions per step of the best sentences, with another word in one of four places, before
            screening.
        filled: Templates per step that are filled with words, before screening.
        joined: Pairs of good prompts per step that are joined to one prompt, before screening.
        step_contexts: Number of questions on which a step scores sentences. They are chosen by the first sentences'
            scores on up to eight search questions: those that rank them as all eight do.
        gradient: Whether the objective's gradient is used to predict effects of words.
        steering: Whether half of the sentences at the start are written with the residual stream steered
            along the objective's direction.
        probe: Whether scores are predicted from residuals at half the model's depth.
        joins: Whether pairs of good prompts are joined.
        bias: Nats added to the logits of a word whose learned effect is one standard deviation above the
            mean; the values take turns.
        explore: Factor of the standard deviation when effects and scores are drawn (Thompson sampling).
        top_k: Number of likeliest tokens from which the model's text is sampled.

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
        """Return sentences that the model writes after beginnings such as "You are".

        They are scored in step 0.

        Args:
            bench: The search's tools, such as its scorer and random generator.
        """
        tools = SentenceTools.of(bench, self)
        openings = tools.openings(self.sampled_openings)
        pushes = tools.proposals.pushes(openings[0], self.first // 2) if self.steering else []
        pushed = [pushes[i // 2] if i % 2 and i // 2 < len(pushes) else None for i in range(self.first)]
        drafts = [SentenceDraft(openings[i % len(openings)], push=push) for i, push in enumerate(pushed)]
        written = tools.proposals.write(drafts, bench.tools.get("push_site"))
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

        Step 0 scores the sentences of `start` and templates filled with single words. Later steps learn from
        all scores, propose sentences (written, edited, filled into templates), screen them by predicted score
        and cross-entropy, and score the best. Arguments and result are those of `SearchMethod.step`.
        """
        tools = SentenceTools.of(bench, self)
        if step == 0:
            scored = tools.first_scores(as_prompts(population))
        else:
            scored = tools.scored_step(as_prompts(population), step)
        elites = tools.learned.elites()
        return scored, elites, len(scored)

    def archive(self, bench: SearchToolkit, pool: ScoredPrompts) -> ScoredPrompts:
        """Return the best scored sentences that keep the search's limits, up to twelve.

        A limit is, for example, `max_cross_entropy`. Sentences that differ in their words come first.

        Args:
            bench: The search's tools, whose memory has the limits and all scores.
            pool: Scored sentences.
        """
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

    def final(self, bench: SearchToolkit, archive: ScoredPrompts) -> Ids:
        """Return the archived prompts, and the best four also without each of their sentences.

        A prompt without one of its sentences is returned if it keeps the search's limits. So the final choice
        (`Frontier.choose`) can leave out a sentence that adds next to nothing.

        Args:
            bench: The search's tools.
            archive: The prompts that `archive` kept, best first.
        """
        found = as_prompts(archive.ids)
        shorter = SentenceTools.of(bench, self).without_a_sentence(found[:_SHORTENED])
        return as_ids(list(dict.fromkeys(found + shorter)), archive.ids.device)

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """Return warnings about the search, one line each.

        There are two: a limit (such as `max_cross_entropy`) had to be raised at the start, or the model's
        answers do not follow the objective.

        Args:
            bench: The search's tools, whose memory has the limits and all scores.
        """
        limits, found = bench.memory["limits"], []
        limit = float(limits[0])
        if (
            limits[:4]
            > torch.tensor([self.max_cross_entropy, self.max_small_word, self.max_word, self.max_ending])
        ).any():
            found.append(
                f"no sentence of the start kept the limit of {self.max_cross_entropy:.2f} nats per token: the limit was {limit:.2f}"
            )
        if not bench.scorer.objective.needs_final:
            tools = SentenceTools.of(bench, self)
            found += tools.learned.disagreement(tools.scorer)
        return tuple(found)
