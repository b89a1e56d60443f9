"""One search over sentences: proposals, screening, scores, and what is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Site
from workbench.objectives import answer_log_odds
from workbench.search.nan_check import check_finite
from workbench.search.scored_prompts import Ids, ScoredPrompts, as_ids, as_prompts
from workbench.search.scoring.scorer import Scorer
from workbench.search.sentence_writing.restarts import left_out, update_restart, without_left_out
from workbench.search.sentence_writing.search_inputs import both_sides, direction_of
from workbench.search.sentence_writing.sentence_edits import SentenceEdits
from workbench.search.sentence_writing.sentence_form import load_form, split_sentences
from workbench.search.sentence_writing.sentence_settings import SentenceSettings
from workbench.search.sentence_writing.sentence_writer import (
    UNMEASURED,
    ScreenedSentences,
    SentenceDraft,
    SentenceWriter,
)
from workbench.search.sentence_writing.slot_text import Prompt, SlotText
from workbench.search.sentence_writing.word_bank import WordBank
from workbench.search.sentence_writing.word_effect_model import CandidateWords, WordEffectModel, fit_effects
from workbench.search.toolkit import SearchToolkit
from workbench.statistics import spearman

#: Rank correlation of the objective with the log-odds, over scored sentences, below which the objective is
#: not to be trusted.
_AGREES = 0.3
#: The fraction of its words that a candidate may have in common with one already chosen in the same step.
_ALIKE = 0.75
#: Words of each kind in the bank whose neighbours are read next.
_GROW_FROM = 4
#: Least limit, nats, of the ending of a template with one word.
_WORD_ENDING = 6.5
#: In place of a limit.
_NO_LIMIT = 1e6
#: The best prompts among which pairs are joined.
_PARENTS = 24


@dataclass
class SentenceTools:
    """One search's writer, form, few-context scorer and candidate words, made once; what was learned is in `bench.memory`."""

    bench: SearchToolkit
    method: SentenceSettings
    slot: SlotText
    writer: SentenceWriter
    scorer: Scorer
    words: WordBank

    @classmethod
    def of(cls, bench: SearchToolkit, method: SentenceSettings) -> SentenceTools:
        """The search's tools, made when they are first needed."""
        if "sentences" not in bench.tools:
            scorer, runner = bench.scorer, bench.scorer.runner
            form = load_form(method.languages, method.openings, method.sentences)
            slot = SlotText(runner, scorer.contexts, bench.allowed, form, method.length)
            writer = SentenceWriter(runner, scorer.contexts[0].prefix_ids, bench.allowed, form.never_last)
            if not writer.ends.any():
                raise UserError(
                    "no token that may be used ends a sentence: a search over sentences needs one (see the lexicon)"
                )
            few = Scorer(
                runner,
                scorer.objective,
                both_sides(scorer.contexts, method.step_contexts),
                scorer.optimizations,
                scorer.chunk.tokens,
            )
            bank = WordBank(slot, writer, _candidate_words(writer), bench.memory)
            bench.tools["sentences"] = cls(bench, method, slot, writer, few, bank)
        return bench.tools["sentences"]

    def openings(self, sampled: int) -> list[Prompt]:
        """The form's openings that survive their round trip, and some that the model begins with by itself (two tokens)."""
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

    def write(self, drafts: Sequence[SentenceDraft], site: Site | None = None) -> list[Prompt]:
        """Whole sentences only."""
        return [
            ids
            for ids in self.writer.write(
                drafts, self.method.length, self.method.top_k, self.bench.generator, site
            )
            if ids
        ]

    def admitted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """New prompts of the right form that survive in the slot."""
        return self.slot.admitted(prompts, set(self.scored_prompts()))

    # ---- steps ------------------------------------------------------------------------------------------------------

    def first_scores(self, prompts: list[Prompt]) -> ScoredPrompts:
        """The start's sentences, those of the rest that the probe prefers, the gradient, and templates with one word."""
        method, kept = self.method, self.admitted(prompts)
        if not kept:
            raise UserError(
                "no sentence of the start has the form of a sentence in this slot: give other openings, or more tokens of length"
            )
        screened = self.writer.screen(self.writer.read(kept))
        self.set_limits(screened)
        fluent = (screened.cross_entropy <= float(self.bench.memory["limits"][0]) + 1.0).nonzero()[:, 0]
        first, rest = fluent[: method.first_scored], fluent[method.first_scored :]
        scored = self.score([kept[i] for i in first.tolist()], screened.pick(first))
        if method.gradient:
            self.differentiate(_most_natural(scored, 3))
        if len(rest):
            mean, _ = self.predicted([kept[i] for i in rest.tolist()], screened.residuals[rest])
            best = rest[mean.argsort(descending=True, stable=True)[: method.children]]
            scored = scored.join(self.score([kept[i] for i in best.tolist()], screened.pick(best)))
        return scored.join(self._scored_words())

    def _scored_words(self) -> ScoredPrompts:
        """Templates with one word, a few at a time; between them the bank grows."""
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
        """The method's limits; where no sentence of the start keeps them, those that the quarter of the lowest cross-entropy keeps."""
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
        """Candidates, screened at half depth by what is predicted of them, then by their cross-entropy; the best are scored."""
        method = self.method
        prompts = self.admitted(self.candidates(elites, step))
        if not prompts:
            return self.score([], None)
        self.grow()
        explored = self.slots(min(method.explored, method.children - 1)) if method.explored else []
        explored += self.shortened(elites[:1])[: method.children - 1 - len(explored)]
        read = self.writer.read(prompts)
        mean, sd = self.predicted(prompts, read.means)
        value = mean + method.explore * sd * torch.randn(len(mean), generator=self.bench.generator)
        bags, wanted = [self.words.words.of(ids) for ids in prompts], method.children - len(explored)
        chosen: list[Prompt] = []
        kept: list[ScreenedSentences] = []
        taken: list[set[int]] = []
        for part in value.argsort(descending=True, stable=True).split(3 * method.children):
            screened, rows = self.writer.screen(read.pick(part)), []  # type: ignore[var-annotated]
            for row in self._keeps(screened.measures).nonzero()[:, 0].tolist():
                words = set(bags[int(part[row])])
                if len(chosen) + len(rows) < wanted and all(
                    len(words & other) <= _ALIKE * len(words) for other in taken
                ):
                    taken.append(words)
                    rows.append(row)
            some, screened = (
                [prompts[int(part[row])] for row in rows],
                screened.pick(torch.tensor(rows, dtype=torch.long)),
            )
            self._measure_roles(some, screened)
            usable = self._keeps(screened.measures).nonzero()[:, 0]
            chosen += [some[row] for row in usable.tolist()]
            kept.append(screened.pick(usable))
            if len(chosen) == wanted:
                break
        if explored:
            kept.append(self.writer.screen(self.writer.read(explored)))
        return self.score(chosen + explored, ScreenedSentences.joined(kept))

    # ---- scores and what is learned from them -----------------------------------------------------------------------

    def scored_prompts(self) -> list[Prompt]:
        """Every prompt scored so far."""
        return as_prompts(self.bench.memory["ids"]) if "ids" in self.bench.memory else []

    def score(self, prompts: Sequence[Prompt], screened: ScreenedSentences | None) -> ScoredPrompts:
        """Exact scores on the step's contexts, remembered."""
        memory, device = self.bench.memory, self.bench.scorer.runner.device
        if not prompts or screened is None:
            none = torch.zeros(0, device=device)
            return ScoredPrompts(as_ids([], device), none, none)
        self._measure_roles(prompts, screened)
        ids = as_ids(prompts, device)
        scored = ScoredPrompts(ids, self.scorer.objectives(ids), screened.cross_entropy.to(device))
        check_finite(self.bench.scorer.runner, self.scorer.contexts, scored)
        everything = ScoredPrompts(ids.cpu(), scored.objective.cpu(), screened.cross_entropy)
        residuals, measures = screened.residuals, screened.measures
        if "ids" in memory:
            everything = ScoredPrompts(memory["ids"], memory["scores"], memory["measures"][:, 0]).join(
                everything
            )
            residuals, measures = (
                torch.cat([memory["residuals"], residuals]),
                torch.cat([memory["measures"], measures]),
            )
        memory.update(ids=everything.ids, scores=everything.objective, residuals=residuals, measures=measures)
        return scored

    def good_prompts(self) -> set[Prompt]:
        """Scored prompts that keep the limits."""
        prompts = self.scored_prompts()
        return {prompts[i] for i in self._good().nonzero()[:, 0].tolist()}

    def unlike_first(self, prompts: Sequence[Prompt]) -> list[int]:
        """The places of prompts, those first that have at most three quarters of their words in common with each before them."""
        bags, unlike = [set(self.words.words.of(prompt)) for prompt in prompts], []  # type: ignore[var-annotated]
        for i, words in enumerate(bags):
            if all(len(words & bags[j]) <= _ALIKE * len(words) for j in unlike):
                unlike.append(i)
        return unlike + [i for i in range(len(prompts)) if i not in set(unlike)]

    def disagreement(self, n: int = 24) -> list[str]:
        """One line where the objective and the answers' log-odds disagree over n scored sentences, from the best to the worst."""
        memory, scorer, device = self.bench.memory, self.scorer, self.bench.scorer.runner.device
        order = memory["scores"].argsort(descending=True, stable=True)
        rows = order[torch.linspace(0, len(order) - 1, min(n, len(order))).round().long()]
        if len(rows) < 8:
            return []
        scored = self.scored_prompts()
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
        memory, words = self.bench.memory, self._with_slope()
        bags = [words.of(ids) for ids in self.scored_prompts()]
        return fit_effects(
            words, bags, memory["residuals"], memory["scores"], self.method.probe if probe is None else probe
        )

    def predicted(
        self, prompts: Sequence[Prompt], means: Float[Tensor, "prompt d_model"]
    ) -> tuple[Tensor, Tensor]:
        """Expected scores of prompts and their standard deviations."""
        return self.fit().predict([self.words.words.of(ids) for ids in prompts], means)

    def _with_slope(self) -> CandidateWords:
        """The candidate words with the gradient's prediction of each, standardised."""
        words = self.words.words
        if "slope" not in self.bench.memory:
            return words
        raw = (
            self.bench.scorer.runner.embeddings()[words.tokens].float().cpu()
            @ self.bench.memory["slope"].float()
        )
        return replace(words, slope=(raw - raw.mean()) / raw.std().clamp(min=1e-9))

    def elites(self) -> Ids:
        """The best prompts that keep the limits, each with under half of its words in one before it."""
        return as_ids(self._diverse(self._good(), self.method.population), self.bench.scorer.runner.device)

    def strongest(self) -> list[Prompt]:
        """The best prompts whatever their cross-entropy: a strong word in too short a sentence can become fluent by what is added."""
        return self._diverse(torch.ones_like(self._good()), self.method.population)

    def _diverse(self, among: Tensor, n: int) -> list[Prompt]:
        """The n best of some scored prompts, each with at most half of its words in one before it."""
        prompts = self.scored_prompts()
        among = among & without_left_out(
            self.bench.memory, [self.words.words.of(prompt) for prompt in prompts]
        )
        order = (
            self.bench.memory["scores"]
            .masked_fill(~among, -torch.inf)
            .argsort(descending=True, stable=True)
            .tolist()
        )
        kept: list[Prompt] = []
        for row in order[: int(among.sum())]:
            words = set(self.words.words.of(prompts[row]))
            if all(len(words & set(self.words.words.of(other))) <= len(words) / 2 for other in kept):
                kept.append(prompts[row])
            if len(kept) == n:
                break
        return kept

    def _good(self) -> Tensor:
        """Scored prompts that keep the limits."""
        return self._keeps(self.bench.memory["measures"])

    def _keeps(self, measures: Tensor) -> Tensor:
        return (measures <= self.bench.memory["limits"]).all(1)

    def _measure_roles(self, prompts: Sequence[Prompt], screened: ScreenedSentences) -> None:
        """Fills in the last measure of prompts that keep the other limits."""
        measures, roles = screened.measures, self.slot.form.roles
        rows = ((measures[:, 4] == UNMEASURED) & self._keeps(measures)).nonzero()[:, 0].tolist()
        if rows and roles and float(self.bench.memory["limits"][4]) < _NO_LIMIT:
            some = [prompts[i] for i in rows]
            after = [
                [self.writer.log_probs_after(self.slot.encode(f"{text}\n"), some) for text in pair]
                for pair in roles
            ]
            measures[rows, 4] = torch.stack([evil - good for good, evil in after]).max(0).values

    # ---- words ------------------------------------------------------------------------------------------------------

    def slots(self, n: int) -> list[Prompt]:
        """Templates with one word: those that half-depth residuals predict to be best; without a probe, by the gradient and the model."""
        bank = self.words
        if not len(bank.places):
            return []
        if self.method.probe:
            mean, sd = self.predicted(bank.prompts, bank.means)
            value = mean + sd * torch.randn(len(mean), generator=self.bench.generator)
        else:
            value = self._with_slope().slope[bank.places] + 0.15 * bank.log_probs
        fresh = set(self.admitted(bank.prompts))
        picked = bank.unlike(bank.half_in_turn(value.argsort(descending=True, stable=True)), fresh, 2 * n)
        if not picked:
            return []
        # A fragment of a word ("cardi") is one that the model does not expect to end there. A word may be
        # learned from where it may not end.
        measures, limits = (
            self.writer.screen(self.writer.read([bank.prompts[row] for row in picked])).measures,
            self.bench.memory["limits"],
        )
        whole = (measures[:, 1] <= limits[1]) & (measures[:, 3] <= limits[3].clamp(min=_WORD_ENDING))
        return [bank.prompts[row] for row, ok in zip(picked, whole.tolist(), strict=True) if ok][:n]

    def grow(self) -> None:
        """The bank grows by the neighbours of the words that are predicted to be its best, kind by kind."""
        bank = self.words
        if self.method.probe and self.method.near_reads and len(bank.places):
            mean, _ = self.predicted(bank.prompts, bank.means)
            order = bank.in_turn(mean.argsort(descending=True, stable=True))
            bank.grow(bank.places[order[: _GROW_FROM * bank.n_kinds]], self.method.near_reads)

    def word_effects(self) -> tuple[Float[Tensor, " word"], Float[Tensor, " word"]]:
        """What each candidate word is expected to do and how sure that is, in standard deviations of the scores.

        The words' own model, and for the bank's words what half-depth residuals predict of them.
        """
        mean, spread = self.fit(probe=False).word_effects()
        bank = self.words
        if self.method.probe and len(bank.places):
            model = self.fit()
            predicted, sd = model.predict([bank.words.of(ids) for ids in bank.prompts], bank.means)
            mean = mean.clone()
            mean[bank.places] += (predicted - predicted.mean()) / model.sd
            spread = spread.clone()
            spread[bank.places] = (sd / model.sd).minimum(spread[bank.places])
        return mean, spread

    # ---- proposals --------------------------------------------------------------------------------------------------

    def pushes(self, opening: Prompt, n: int) -> list[Tensor]:
        """`n` pushes along the objective's own direction, in strengths 1 to 3 (tenths of the residual's usual norm).

        None where the objective has no direction.
        """
        found = direction_of(self.bench.scorer.objective)
        if found is None:
            return []
        site, vector = found
        self.bench.tools["push_site"] = site
        scale = 0.1 * self.writer.norm(opening, site)
        return [(1 + i % 3) * scale * vector / vector.norm() for i in range(n)]

    def candidates(self, elites: list[Prompt], step: int) -> list[Prompt]:
        """Newly written sentences (every `write_every` steps), edits, filled templates, and pairs."""
        effects, weights = self.word_effects(), self.method.bias
        drawn = partial(self._drawn, *effects)
        if self._restarted(step, effects[0]):
            elites = as_prompts(self.elites())
        edits = SentenceEdits(
            self.words, lambda: drawn(weights[edits.pick(len(weights))]), self.bench.generator
        )
        strongest = self.strongest()
        writes = (
            self.method.written if step % self.method.write_every == 1 or self.method.write_every == 1 else 0
        )
        written = self.write(
            [
                self._draft(drawn(weights[i % len(weights)]), elites, strongest, edits, i)
                for i in range(writes)
            ]
        )
        edited = edits.edited(elites, self.method.edited - self.method.edited // 3) + edits.edited(
            strongest, self.method.edited // 3
        )
        edited += edits.swapped(elites, self.method.swapped)
        templates = self.slot.form.slots
        filled = [
            self.words.fill(templates[(step + i) % len(templates)], drawn(weights[i % len(weights)]))
            for i in range(self.method.filled if templates else 0)
        ]
        return written + edited + filled + (self._joined() if self.method.joins else [])

    def _restarted(self, step: int, effects: Float[Tensor, " word"]) -> bool:
        """Whether words are left out now: the strongest of the best prompt, where there was no gain for some steps (`restarts.py`)."""
        scores = self.bench.memory["scores"].masked_fill(~self._good(), -torch.inf)
        best = int(scores.argmax())
        update_restart(
            self.bench.memory,
            step,
            float(scores[best]),
            self.words.words.of(self.scored_prompts()[best]),
            effects,
        )
        return len(left_out(self.bench.memory)) > 0

    def _drawn(self, mean: Tensor, spread: Tensor, weight: float) -> Float[Tensor, " word"]:
        """`weight` times a draw of every word's effect, in standard deviations; -inf for words that are left out."""
        drawn = weight * (
            mean + self.method.explore * spread * torch.randn(len(mean), generator=self.bench.generator)
        )
        drawn[left_out(self.bench.memory)] = -torch.inf
        return drawn

    def _draft(
        self, drawn: Tensor, elites: list[Prompt], strongest: list[Prompt], edits: SentenceEdits, number: int
    ) -> SentenceDraft:
        """A sentence to write.

        After a general opening, an elite up to a word, or a whole strong sentence (the model goes on with a
        second one); biased, and pushed towards what good sentences share.
        """
        short = [prompt for prompt in strongest if len(prompt) <= self.method.length // 2]
        if short and number % 2:
            opening = short[edits.pick(len(short))]
        elif elites and number % 4:
            opening = edits.beginning(elites[edits.pick(len(elites))])
        else:
            openings = [self.slot.encode(text) for text in self.slot.form.openings]
            opening = openings[edits.pick(len(openings))]
        bias = torch.zeros(len(self.writer.usable))
        bias[self.words.words.tokens] = drawn.clamp(-8, 8)
        return SentenceDraft(
            opening, bias.to(self.bench.scorer.runner.device), self._towards_the_best(number)
        )

    def _towards_the_best(self, number: int) -> Tensor | None:
        """Zero, one or two times the way from the mean residual to that of the best eighth."""
        times = number % 3
        if not self.method.steering or not times:
            return None
        scores, residuals = self.bench.memory["scores"], self.bench.memory["residuals"]
        best = scores.topk(max(1, len(scores) // 8)).indices
        return times * (residuals[best].mean(0) - residuals.mean(0))

    def shortened(self, elites: Sequence[Prompt]) -> list[Prompt]:
        """Elites of several sentences without one of them: a sentence that only lowers the mean cross-entropy is padding."""
        parts = [split_sentences(self.slot.text(elite)) for elite in elites]
        texts = [
            " ".join(part[:i] + part[i + 1 :]) for part in parts if len(part) > 1 for i in range(len(part))
        ]
        prompts = self.admitted([self.slot.encode(text) for text in texts])
        return [prompt for prompt, fits in zip(prompts, self._fit(prompts), strict=True) if fits]

    def _fit(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Which prompts keep the limits."""
        return self._keeps(self.writer.screen(self.writer.read(prompts)).measures).tolist() if prompts else []

    def _joined(self) -> list[Prompt]:
        """Two good prompts one after the other: the pairs of the greatest sums that fit into the length."""
        scores, prompts = self.bench.memory["scores"], self.scored_prompts()
        usable = without_left_out(self.bench.memory, [self.words.words.of(prompt) for prompt in prompts])
        best = (
            scores.masked_fill(~usable, -torch.inf)
            .argsort(descending=True, stable=True)[: min(_PARENTS, int(usable.sum()))]
            .tolist()
        )
        pairs = [
            (a, b)
            for a in best
            for b in best
            if a != b and len(prompts[a]) + len(prompts[b]) <= self.method.length
        ]
        pairs.sort(key=lambda pair: -float(scores[list(pair)].sum()))
        texts = [f"{self.slot.text(prompts[a])} {self.slot.text(prompts[b])}" for a, b in pairs]
        seen = set(prompts)
        made = [
            ids
            for ids in (self.slot.encode(text) for text in texts if self.slot.form.accepts(text))
            if ids not in seen
        ]
        return made[: self.method.joined]


def _most_natural(scored: ScoredPrompts, n: int) -> list[Prompt]:
    prompts = as_prompts(scored.ids)
    return [prompts[i] for i in scored.cross_entropy.argsort(stable=True)[:n].tolist()]


def _candidate_words(writer: SentenceWriter) -> CandidateWords:
    """Lower-case words of one token that begin after a space."""
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
