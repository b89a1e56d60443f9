"""Run the steps of a search over sentences: propose, screen, score, and learn from the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.search.nan_check import check_finite
from workbench.search.scored_prompts import ScoredPrompts, as_ids, as_prompts
from workbench.search.scoring.scorer import Scorer
from workbench.search.sentence_writing.search_inputs import both_sides, telling_questions
from workbench.search.sentence_writing.sentence_form import load_form
from workbench.search.sentence_writing.sentence_proposals import SentenceProposals
from workbench.search.sentence_writing.sentence_scores import ALIKE, SentenceScores
from workbench.search.sentence_writing.sentence_settings import SentenceSettings
from workbench.search.sentence_writing.sentence_writer import (
    UNMEASURED,
    ScreenedSentences,
    SentenceDraft,
    SentenceWriter,
)
from workbench.search.sentence_writing.slot_text import Prompt, SlotText
from workbench.search.sentence_writing.word_bank import WordBank
from workbench.search.sentence_writing.word_effect_model import CandidateWords
from workbench.search.toolkit import SearchToolkit

#: Number of best words of each kind whose neighbours are added to the bank.
_GROW_FROM = 4
#: Least limit, nats, of the ending of a template with one word.
_WORD_ENDING = 6.5
#: Most search questions from which those of a step are chosen.
_QUESTIONS = 8
#: Value of a limit that is switched off.
_NO_LIMIT = 1e6


@dataclass
class SentenceTools:
    """Objects that a search over sentences uses in all steps; they are made once.

    What the search learns is in `bench.memory`.

    Attributes:
        bench: The search's tools, such as its scorer, random generator and memory.
        method: The search's settings.
        slot: Converts prompts between text and tokens at the slot, the place in the chat where they are
            inserted.
        writer: Lets the model write sentences, and screens them.
        words: The candidate words, and those of them that were tried in templates.
    """

    bench: SearchToolkit
    method: SentenceSettings
    slot: SlotText
    writer: SentenceWriter
    words: WordBank

    @cached_property
    def scorer(self) -> Scorer:
        """Scorer on the few questions that a step uses; they are chosen when the first sentences are scored."""
        contexts = self.bench.scorer.contexts.unbranched
        if "questions" not in self.bench.memory:
            return self._scorer(both_sides(contexts, self.method.step_contexts))
        chosen = self.bench.memory["questions"].tolist()
        return self._scorer(replace(contexts, items=tuple(contexts.items[i] for i in chosen)))

    def _scorer(self, contexts: Contexts) -> Scorer:
        """Return a scorer of the search's objective on some of its questions."""
        whole = self.bench.scorer
        return Scorer(whole.runner, whole.objective, contexts, whole.optimizations, whole.chunk.tokens)

    @cached_property
    def learned(self) -> SentenceScores:
        """The sentences scored so far, and the models that predict scores from them."""
        return SentenceScores(self.bench, self.method, self.words)

    @cached_property
    def proposals(self) -> SentenceProposals:
        """Object that proposes candidate sentences: written, edited, filled into templates, and joined."""
        return SentenceProposals(self.slot, self.writer, self.learned)

    @classmethod
    def of(cls, bench: SearchToolkit, method: SentenceSettings) -> SentenceTools:
        """Return the objects that a search over sentences uses; the first call makes them.

        Args:
            bench: The search's tools, in which the objects are kept.
            method: The search's settings.

        Raises:
            UserError: No allowed token ends a sentence, or no lower-case word is allowed.
        """
        if "sentences" not in bench.tools:
            scorer, runner = bench.scorer, bench.scorer.runner
            form = load_form(method.languages, method.openings, method.sentences)
            slot = SlotText(runner, scorer.contexts, bench.allowed, form, method.length)
            writer = SentenceWriter(runner, scorer.contexts[0].prefix_ids, bench.allowed, form.never_last)
            if not writer.ends.any():
                raise UserError(
                    "no token that may be used ends a sentence: a search over sentences needs one (see the lexicon)"
                )
            bank = WordBank(slot, writer, _candidate_words(writer), bench.memory)
            bench.tools["sentences"] = cls(bench, method, slot, writer, bank)
        return bench.tools["sentences"]

    def openings(self, sampled: int) -> list[Prompt]:
        """Return beginnings of sentences as token ids: given ones, and some that the model writes.

        Given ones (from the settings or sentence_frames.yaml) are used if all their tokens are allowed and
        decode to the same text. The model's have up to two tokens.

        Args:
            sampled: Number of beginnings from the model.

        Returns:
            Token ids of each beginning.

        Raises:
            UserError: None of the given beginnings can be used.
        """
        given = {text: self.slot.encode(text) for text in self.slot.form.openings}
        kept = [
            ids
            for text, ids in given.items()
            if self.slot.text(ids) == text and bool(self.bench.allowed[list(ids)].all())
        ]
        if not kept:
            raise UserError(
                "none of the sentence openings survives this tokenizer and lexicon: give openings in its own words"
            )
        if sampled:
            drawn = self.writer.write(
                [SentenceDraft(())] * (2 * sampled),
                2,
                self.method.top_k,
                self.bench.generator,
                unfinished=True,
            )
            texts = [self.slot.text(ids) for ids in drawn if ids]
            kept += [
                self.slot.encode(t) for t in dict.fromkeys(texts) if t[:1].isalpha() and not t[:1].islower()
            ][:sampled]
        return kept

    # ---- steps ------------------------------------------------------------------------------------------------------

    def first_scores(self, prompts: list[Prompt]) -> ScoredPrompts:
        """Score the first sentences of a search, and fit the first models that predict scores.

        Some of the sentences are scored; then those of the others that the models predict to be best, from
        their residuals at half the model's depth; then templates filled with single words.

        Args:
            prompts: Token ids of the sentences that the model wrote at the start.

        Raises:
            UserError: No prompt has the form of a sentence.
        """
        method, kept = self.method, self.proposals.admitted(prompts)
        if not kept:
            raise UserError(
                "no sentence of the start has the form of a sentence in this slot: give other openings, or more tokens of length"
            )
        screened = self.writer.screen(self.writer.read(kept))
        self.set_limits(screened)
        fluent = (screened.cross_entropy <= float(self.bench.memory["limits"][0]) + 1.0).nonzero()[:, 0]
        first, rest = fluent[: method.first_scored], fluent[method.first_scored :]
        some = [kept[i] for i in first.tolist()]
        scored = self.score(some, screened.pick(first), self._chosen_questions(some))
        if method.gradient:
            self.learned.differentiate(self.scorer, _most_natural(scored, 3))
        if len(rest):
            mean, _ = self.learned.predicted([kept[i] for i in rest.tolist()], screened.residuals[rest])
            best = rest[mean.argsort(descending=True, stable=True)[: method.children]]
            scored = scored.join(self.score([kept[i] for i in best.tolist()], screened.pick(best)))
        return scored.join(self._scored_words())

    def _chosen_questions(self, prompts: Sequence[Prompt]) -> Float[Tensor, " prompt"] | None:
        """Choose the questions of a step by the scores of prompts on up to eight search questions.

        Returns:
            The prompts' objective on the chosen questions; None if there is no choice.
        """
        contexts, n = self.bench.scorer.contexts.unbranched, self.method.step_contexts
        if len(contexts) <= n or len(prompts) < 3:
            return None
        asked = both_sides(contexts, _QUESTIONS)
        ids = as_ids(prompts, self.bench.scorer.runner.device)
        one = [self._scorer(replace(asked, items=(context,))).objectives(ids) for context in asked]
        scores = torch.stack(one, dim=1)
        chosen = telling_questions(asked, scores.cpu(), n)
        places = {id(context): i for i, context in enumerate(contexts.items)}
        self.bench.memory["questions"] = torch.tensor([places[id(asked.items[i])] for i in chosen])
        self.__dict__.pop("scorer", None)
        return scores[:, chosen].mean(1)

    def _scored_words(self) -> ScoredPrompts:
        """Score templates with one word, a few at a time; the bank grows in between."""
        scored = self.score([], None)
        if self.method.slot_words:
            self.words.begin(self.method.slot_reads)
        for start in range(0, self.method.slot_words, self.method.children):
            if start:
                self.grow()
            chosen = self.slots(min(self.method.children, self.method.slot_words - start))
            if chosen:
                scored = scored.join(self.score(chosen, self.writer.screen(self.writer.read(chosen))))
        return scored

    def set_limits(self, screened: ScreenedSentences) -> None:
        """Set the limits on sentences (such as the largest cross-entropy) from the search's settings.

        If no sentence of the start keeps them all, they are raised to what the quarter of sentences with the
        lowest cross-entropy keeps.

        Args:
            screened: The sentences of the start with their screening measures.
        """
        method = self.method
        evil = (
            _NO_LIMIT if method.max_evil is None or self.bench.scorer.objective.sign > 0 else method.max_evil
        )
        limits = torch.tensor(
            [
                max(method.max_cross_entropy - method.margin, 0.0),
                method.max_small_word,
                method.max_word,
                method.max_ending,
                evil,
            ]
        )
        if not (screened.measures <= limits).all(1).any():
            lowest = screened.cross_entropy.argsort(stable=True)[: 1 + len(screened.cross_entropy) // 4]
            limits = limits.maximum(screened.measures[lowest].max(0).values)
        self.bench.memory["limits"] = limits

    def scored_step(self, elites: list[Prompt], step: int) -> ScoredPrompts:
        """Run one step of a search over sentences: propose candidates, screen them, and score the best.

        Screening first takes the candidates with the best scores predicted from their residuals at half the
        model's depth, then drops those that break the limits (such as the largest cross-entropy).

        Args:
            elites: Token ids of the best prompts so far.
            step: Number of the step.
        """
        method = self.method
        prompts = self.proposals.admitted(self.proposals.candidates(elites, step))
        if not prompts:
            return self.score([], None)
        self.grow()
        explored = self.slots(min(method.explored, method.children - 1)) if method.explored else []
        explored += self.proposals.shortened(elites[:1])[: method.children - 1 - len(explored)]
        read = self.writer.read(prompts)
        mean, sd = self.learned.predicted(prompts, read.means)
        value = mean + method.explore * sd * torch.randn(len(mean), generator=self.bench.generator)
        bags, wanted = [self.words.words.of(ids) for ids in prompts], method.children - len(explored)
        chosen: list[Prompt] = []
        kept: list[ScreenedSentences] = []
        taken: list[set[int]] = []
        for part in value.argsort(descending=True, stable=True).split(3 * method.children):
            screened, rows = self.writer.screen(read.pick(part)), []  # type: ignore[var-annotated]
            for row in self.learned.keeps(screened.measures).nonzero()[:, 0].tolist():
                words = set(bags[int(part[row])])
                if len(chosen) + len(rows) < wanted and all(
                    len(words & other) <= ALIKE * len(words) for other in taken
                ):
                    taken.append(words)
                    rows.append(row)
            some, screened = (
                [prompts[int(part[row])] for row in rows],
                screened.pick(torch.tensor(rows, dtype=torch.long)),
            )
            self._measure_roles(some, screened)
            usable = self.learned.keeps(screened.measures).nonzero()[:, 0]
            chosen += [some[row] for row in usable.tolist()]
            kept.append(screened.pick(usable))
            if len(chosen) == wanted:
                break
        if explored:
            kept.append(self.writer.screen(self.writer.read(explored)))
        return self.score(chosen + explored, ScreenedSentences.joined(kept))

    def without_a_sentence(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts of several sentences without one of them, scored or not, that keep all limits.

        Args:
            prompts: Token ids of the prompts.
        """
        shorter = self.proposals.without_a_sentence(prompts, ())
        if not shorter:
            return []
        screened = self.writer.screen(self.writer.read(shorter))
        self._measure_roles(shorter, screened)
        return [shorter[row] for row in self.learned.keeps(screened.measures).nonzero()[:, 0].tolist()]

    # ---- scores and what is learned from them -----------------------------------------------------------------------

    def score(
        self,
        prompts: Sequence[Prompt],
        screened: ScreenedSentences | None,
        objectives: Float[Tensor, " prompt"] | None = None,
    ) -> ScoredPrompts:
        """Compute the scores of prompts on the few questions that a step uses, and store them.

        Args:
            prompts: Token ids of the prompts.
            screened: The prompts' screening measures (such as their cross-entropy); None if there are no
                prompts.
            objectives: The prompts' objective on these questions, if it is known already.
        """
        device = self.bench.scorer.runner.device
        if not prompts or screened is None:
            none = torch.zeros(0, device=device)
            return ScoredPrompts(as_ids([], device), none, none)
        self._measure_roles(prompts, screened)
        ids = as_ids(prompts, device)
        known = self.scorer.objectives(ids) if objectives is None else objectives
        scored = ScoredPrompts(ids, known, screened.cross_entropy.to(device))
        check_finite(self.bench.scorer.runner, self.scorer.contexts, scored)
        self.learned.remember(scored, screened)
        return scored

    def _measure_roles(self, prompts: Sequence[Prompt], screened: ScreenedSentences) -> None:
        """Compute the last measure (evil against good assistant) for prompts that keep the other limits."""
        measures, roles = screened.measures, self.slot.form.roles
        rows = ((measures[:, 4] == UNMEASURED) & self.learned.keeps(measures)).nonzero()[:, 0].tolist()
        if rows and roles and float(self.bench.memory["limits"][4]) < _NO_LIMIT:
            some = [prompts[i] for i in rows]
            after = [
                [self.writer.log_probs_after(self.slot.encode(f"{text}\n"), some) for text in pair]
                for pair in roles
            ]
            measures[rows, 4] = torch.stack([evil - good for good, evil in after]).max(0).values

    # ---- words ------------------------------------------------------------------------------------------------------

    def slots(self, n: int) -> list[Prompt]:
        """Return up to `n` new prompts that are templates filled with one word and are predicted to be best.

        The prediction uses the residuals at half the model's depth; if the setting `probe` is False, it uses
        the objective's gradient and the word's log-probability.

        Args:
            n: Largest number of prompts.
        """
        bank = self.words
        if not len(bank.places):
            return []
        if self.method.probe:
            mean, sd = self.learned.predicted(bank.prompts, bank.means)
            value = mean + sd * torch.randn(len(mean), generator=self.bench.generator)
        else:
            value = self.learned.with_slope().slope[bank.places] + 0.15 * bank.log_probs
        fresh = set(self.proposals.admitted(bank.prompts))
        picked = bank.unlike(bank.half_in_turn(value.argsort(descending=True, stable=True)), fresh, 2 * n)
        if not picked:
            return []
        # The model does not expect a fragment of a word ("cardi") to end there. The limit for the ending is
        # at least _WORD_ENDING, because words may be learned from templates that could not be the result.
        measures, limits = (
            self.writer.screen(self.writer.read([bank.prompts[row] for row in picked])).measures,
            self.bench.memory["limits"],
        )
        whole = (measures[:, 1] <= limits[1]) & (measures[:, 3] <= limits[3].clamp(min=_WORD_ENDING))
        return [bank.prompts[row] for row, ok in zip(picked, whole.tolist(), strict=True) if ok][:n]

    def grow(self) -> None:
        """Try more words in templates: those similar to the words that are predicted to be best.

        Similarity is that of the embeddings. The best words of each kind (adjective, noun, ...) are used. The
        new words join the bank, the list of words that were tried.
        """
        bank = self.words
        if self.method.probe and self.method.near_reads and len(bank.places):
            mean, _ = self.learned.predicted(bank.prompts, bank.means)
            order = bank.in_turn(mean.argsort(descending=True, stable=True))
            bank.grow(bank.places[order[: _GROW_FROM * bank.n_kinds]], self.method.near_reads)


def _most_natural(scored: ScoredPrompts, n: int) -> list[Prompt]:
    prompts = as_prompts(scored.ids)
    return [prompts[i] for i in scored.cross_entropy.argsort(stable=True)[:n].tolist()]


def _candidate_words(writer: SentenceWriter) -> CandidateWords:
    """Return the lower-case words of one token that begin after a space."""
    tokens = torch.nonzero(writer.lower)[:, 0].cpu()
    if not len(tokens):
        raise UserError(
            "the vocabulary has no lower-case word that may be used: a search over sentences needs some (see the lexicon)"
        )
    vectors = writer.runner.embeddings().float().cpu()
    vectors = torch.nn.functional.normalize(vectors[tokens] - vectors[tokens].mean(0), dim=-1)
    row = torch.full((writer.runner.shape.d_vocab,), -1)
    row[tokens] = torch.arange(len(tokens))
    return CandidateWords(tokens, vectors, torch.zeros(len(tokens)), row)
