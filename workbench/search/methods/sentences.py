"""Search over whole sentences: the model writes them, what is inside it biases the writing and screens what was written.

1. *Start*: the model continues general openings in the slot, half of them while its residual stream is pushed along the objective
   (steering, arXiv 2308.10248). A few are scored.
2. *Words*: a bank of words in templates with one gap ("Be w."), read to half depth only, is ranked by what the scores so far teach; the
   best that are unlike each other are scored, and the bank grows by the neighbours of its best, round by round and in every later step.
3. *Score* on one question of each answer side, exactly; *learn* what words do and what half-depth residuals predict
   (`word_effect_model.py`), from every score so far.
4. *Write* more, with Thompson draws of the word effects added to the logits of tokens that begin a word (sampling in the manner of
   AutoDAN, arXiv 2310.15140, and BEAST, arXiv 2402.15570, whose candidates also come from the model's top tokens; twists learned from
   scores: arXiv 2404.17546). *Edit* the best: replace, insert, link ("and w"), delete, rewrite the end, cross over, join two (the
   mutations of FLRT, arXiv 2407.17447, on whole words).
5. *Screen* all by form, predicted score and cross-entropy in one pass without any question; score the best; go to 3.
6. The best dozen are scored on all search contexts when the search ends.

Every share is a field, so that an ablation is a value. What each buys is measured in docs/sentences.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from scipy.stats import spearmanr
from torch import Tensor

from workbench.contexts import Contexts, all_survive
from workbench.errors import UserError
from workbench.models import Site
from workbench.models.token_text import token_ids, token_texts
from workbench.objectives import LatentActivationObjective, Objective, ProjectionObjective, answer_log_odds, terms_of
from workbench.personas.persona import counterbalanced
from workbench.search.elite_selection import first_copies
from workbench.search.nan_check import check_finite
from workbench.search.scored_prompts import Ids, ScoredPrompts, as_ids, as_prompts
from workbench.search.scoring.scorer import Scorer
from workbench.search.search_method import SEARCH_METHODS, SearchMethod
from workbench.search.sentence_writing.sentence_form import SentenceForm, load_form
from workbench.search.sentence_writing.sentence_writer import ScreenedSentences, SentenceDraft, SentenceWriter
from workbench.search.sentence_writing.word_effect_model import CandidateWords, WordEffectModel, fit_effects
from workbench.search.toolkit import SearchToolkit

#: Candidates kept to be reported.
_FINALISTS = 12
#: Rank correlation of the objective with the log-odds, over scored sentences, below which the objective is not to be trusted.
_AGREES = 0.3
#: The share of its words that a candidate may have in common with one already chosen in the same step.
_ALIKE = 0.75
#: Cosine of two words' embeddings above which one of them says enough of the other.
_NEAR = 0.4
#: Words of the bank whose neighbours are read next.
_GROW_FROM = 12
#: The best prompts among which pairs are joined.
_PARENTS = 24


@SEARCH_METHODS.register("sentences")
class SentenceSearch(SearchMethod):
    """length: most tokens of a prompt. population: elites that are edited. children: sentences scored a step.
    max_cross_entropy: limit in nats a token. max_small_word: limit for a single function word or punctuation mark, nats: above it a
    sentence is broken or was cut off. max_word: limit for any word, nats, its tokens added: above it a word does not belong where it is.
    Where no sentence of the start keeps all three, the limits are what the lowest quarter keeps.
    languages, openings: data of `sentence_frames.yaml`, or one's own openings. sampled_openings: more openings that the model itself begins with.
    sentences: most sentences in one prompt. first: sentences written for the start, of which `first_scored` are scored and then those
    that the probe predicts to be best. slot_words: templates with one word that are scored at the start, `explored` in every later step:
    words of a bank, of which `slot_reads` are read to half depth at first and `near_reads` more, near to the best, each time.
    written, edited, filled, joined: candidates a step before screening; written only every `write_every` steps. step_contexts: search
    contexts that a step scores on.
    gradient: average the objective's gradient into the word model. steering: push half of the start along the objective. probe: let
    half-depth residuals predict scores. joins: join two elites. bias: nats for a word one standard deviation better.
    explore: weight of the posterior's spread."""

    any_length: ClassVar[bool] = True

    length: int = Field(20, ge=4)
    population: int = Field(6, ge=1)
    children: int = Field(16, ge=1)
    max_cross_entropy: float = Field(4.5, gt=0)
    max_small_word: float = Field(5.0, gt=0)
    max_word: float = Field(11.0, gt=0)
    languages: tuple[str, ...] = ("en",)
    openings: tuple[str, ...] | None = None
    sampled_openings: int = Field(8, ge=0)
    sentences: int = Field(2, ge=1)
    first: int = Field(56, ge=1)
    first_scored: int = Field(16, ge=1)
    slot_words: int = Field(48, ge=0)
    explored: int = Field(3, ge=0)
    slot_reads: int = Field(800, ge=0)
    near_reads: int = Field(250, ge=0)
    written: int = Field(24, ge=0)
    write_every: int = Field(2, ge=1)
    edited: int = Field(56, ge=0)
    step_contexts: int = Field(2, ge=1)
    gradient: bool = False
    steering: bool = True
    probe: bool = True
    joins: bool = True
    joined: int = Field(12, ge=0)
    filled: int = Field(32, ge=0)
    bias: tuple[float, ...] = (1.0, 2.0, 4.0)
    explore: float = Field(0.7, ge=0)
    top_k: int = Field(400, ge=1)

    @property
    def name(self) -> str:
        return "sentences"

    @property
    def typical_length(self) -> int:
        return min(12, self.length)

    # ---- start ------------------------------------------------------------------------------------------------------

    def start(self, bench: SearchToolkit) -> Ids:
        """Sentences that the model writes after general openings; scored in the first step."""
        tools = SentenceTools.of(bench, self)
        openings = tools.openings(self.sampled_openings)
        pushes = tools.pushes(openings[0], self.first // 2) if self.steering else []
        pushed = [pushes[i // 2] if i % 2 and i // 2 < len(pushes) else None for i in range(self.first)]
        drafts = [SentenceDraft(openings[i % len(openings)], push=push) for i, push in enumerate(pushed)]
        written = tools.write(drafts, bench.tools.get("push_site"))
        if self.start_text is not None:
            written.insert(0, tools.encode(self.start_text))
        kept = list(dict.fromkeys(prompt for prompt in written if prompt))
        if not kept:
            raise UserError("the model wrote no whole sentence in this slot: give other openings, or more tokens of length")
        return as_ids(kept, bench.scorer.runner.device)

    def step(self, bench: SearchToolkit, population: Ids, archive: ScoredPrompts | None, step: int) -> tuple[ScoredPrompts, Ids, int]:
        """The start's sentences and slots first; then learn, write, edit, screen, score."""
        tools = SentenceTools.of(bench, self)
        if step == 0:
            scored = tools.first_scores(as_prompts(population))
        else:
            scored = tools.scored_step(as_prompts(population), step)
        elites = tools.elites()
        return scored, elites, len(scored)

    def archive(self, bench: SearchToolkit, pool: ScoredPrompts) -> ScoredPrompts:
        """The dozen best of the sentences that keep the limits."""
        good = SentenceTools.of(bench, self).good_prompts()
        kept = [i for i, prompt in enumerate(as_prompts(pool.ids)) if prompt in good]
        fluent = pool.pick(torch.tensor(kept, dtype=torch.long, device=pool.ids.device))
        fluent = fluent.pick(first_copies(fluent).nonzero()[:, 0])
        return fluent.pick(fluent.objective.argsort(descending=True, stable=True)[:_FINALISTS])

    def warnings(self, bench: SearchToolkit) -> tuple[str, ...]:
        """A limit that could not be kept; an objective that rises where the behaviour does not move with it."""
        limits, found = bench.memory["limits"], []
        limit = float(limits[0])
        if (limits > torch.tensor([self.max_cross_entropy, self.max_small_word, self.max_word])).any():
            found.append(f"no sentence of the start kept the limit of {self.max_cross_entropy:.2f} nats a token: the limit was {limit:.2f}")
        if not bench.scorer.objective.needs_final:
            found += SentenceTools.of(bench, self).disagreement()
        return tuple(found)


@dataclass(frozen=True)
class WordBank:
    """Candidate words read once. words: their places; log_probs: of each in its template; prompts: the filled templates; means: mean
    residuals of those at half depth."""

    words: Int[Tensor, " bank"]
    log_probs: Float[Tensor, " bank"]
    prompts: list[tuple[int, ...]]
    means: Float[Tensor, "bank d_model"]


@dataclass(frozen=True)
class OneGapTemplates:
    """Templates with one gap. where: the best of them for each candidate word; rank, log_probs: the word's rank and log p there."""

    single: list[str]
    where: Int[Tensor, " word"]
    rank: Int[Tensor, " word"]
    log_probs: Float[Tensor, " word"]


@dataclass
class SentenceTools:
    """One search's writer, form, few-context scorer and candidate words, made once; what was learned is in `bench.memory`."""

    bench: SearchToolkit
    method: SentenceSearch
    form: SentenceForm
    writer: SentenceWriter
    scorer: Scorer
    words: CandidateWords

    @classmethod
    def of(cls, bench: SearchToolkit, method: SentenceSearch) -> SentenceTools:
        if "sentences" not in bench.tools:
            scorer, runner = bench.scorer, bench.scorer.runner
            form = load_form(method.languages, method.openings, method.sentences)
            writer = SentenceWriter(runner, scorer.contexts[0].prefix_ids, bench.allowed, form.never_last)
            if not writer.ends.any():
                raise UserError("no token that may be used ends a sentence: a search over sentences needs one (see the lexicon)")
            few = Scorer(runner, scorer.objective, both_sides(scorer.contexts, method.step_contexts), scorer.optimizations, scorer.chunk.tokens)
            bench.tools["sentences"] = cls(bench, method, form, writer, few, _candidate_words(writer))
        return bench.tools["sentences"]

    # ---- text -------------------------------------------------------------------------------------------------------

    def encode(self, text: str, inner: bool = False) -> tuple[int, ...]:
        """Tokens of a text at the slot's beginning, or (inner) inside a prompt."""
        lead = "" if inner else self.bench.scorer.contexts[0].lead
        return tuple(token_ids(self.bench.scorer.runner.tokenizer, [lead + text])[0])

    def text(self, ids: Sequence[int]) -> str:
        """The text of a prompt's tokens."""
        return token_texts(self.bench.scorer.runner.tokenizer, [ids])[0].strip()

    def openings(self, sampled: int) -> list[tuple[int, ...]]:
        """The form's openings that survive their round trip, and some that the model begins with by itself (two tokens)."""
        given = [self.encode(text) for text in self.form.openings]
        pairs = zip(given, self.form.openings, strict=True)
        kept = [ids for ids, text in pairs if self.text(ids) == text and bool(self.bench.allowed[list(ids)].all())]
        if not kept:
            raise UserError("none of the sentence openings survives this tokenizer and lexicon: give openings in its own words")
        if sampled:
            drawn = self.writer.write([SentenceDraft(())] * (2 * sampled), 2, self.method.top_k, self.bench.generator, unfinished=True)
            texts = [self.text(ids) for ids in drawn if ids]
            kept += [self.encode(t) for t in dict.fromkeys(texts) if t[:1].isalpha() and not t[:1].islower()][:sampled]
        return kept

    def write(self, drafts: Sequence[SentenceDraft], site: Site | None = None) -> list[tuple[int, ...]]:
        """Whole sentences only."""
        return [ids for ids in self.writer.write(drafts, self.method.length, self.method.top_k, self.bench.generator, site) if ids]

    def admitted(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """New prompts of the right form that survive in the slot, in the tokenizer's own spelling."""
        runner = self.bench.scorer.runner
        seen = set(as_prompts(self.bench.memory["ids"])) if "ids" in self.bench.memory else set()
        texts = dict.fromkeys(self.text(ids) for ids in prompts)
        again = dict.fromkeys(self.encode(text) for text in texts if self.form.accepts(text))
        fresh = [ids for ids in again if ids not in seen and len(ids) <= self.method.length and bool(self.bench.allowed[list(ids)].all())]
        alive = all_survive(runner, self.bench.scorer.contexts, fresh) if fresh else []
        return [ids for ids, ok in zip(fresh, alive, strict=True) if ok]

    # ---- a step -----------------------------------------------------------------------------------------------------

    def first_scores(self, prompts: list[tuple[int, ...]]) -> ScoredPrompts:
        """The start's sentences, the gradient at the most natural of them, and templates with one word."""
        method, kept = self.method, self.admitted(prompts)
        if not kept:
            raise UserError("no sentence of the start has the form of a sentence in this slot: give other openings, or more tokens of length")
        screened = self.writer.screen(self.writer.read(kept))
        self.set_limits(screened)
        fluent = (screened.cross_entropy <= float(self.bench.memory["limits"][0]) + 1.0).nonzero()[:, 0]
        first, rest = fluent[: method.first_scored], fluent[method.first_scored :]
        scored = self.score([kept[i] for i in first.tolist()], screened.pick(first))
        if method.gradient:
            self.differentiate(_most_natural(scored, 3))
        if len(rest):
            bags = [self.words.of(kept[i]) for i in rest.tolist()]
            mean, _ = self.fit().predict(bags, screened.residuals[rest])
            best = rest[mean.argsort(descending=True, stable=True)[: method.children]]
            scored = scored.join(self.score([kept[i] for i in best.tolist()], screened.pick(best)))
        for start in range(0, method.slot_words, method.children):
            if start:
                self.grow()
            words = self.slots(min(method.children, method.slot_words - start))
            if words:
                scored = scored.join(self.score(words, self.writer.screen(self.writer.read(words))))
        return scored

    def set_limits(self, screened: ScreenedSentences) -> None:
        """The method's limits; where no sentence of the start keeps both, those that the quarter of the lowest cross-entropy keeps."""
        limits = torch.tensor([self.method.max_cross_entropy, self.method.max_small_word, self.method.max_word])
        if not (screened.measures <= limits).all(1).any():
            lowest = screened.cross_entropy.argsort(stable=True)[: 1 + len(screened.cross_entropy) // 4]
            limits = limits.maximum(screened.measures[lowest].max(0).values)
        self.bench.memory["limits"] = limits

    def scored_step(self, elites: list[tuple[int, ...]], step: int) -> ScoredPrompts:
        """Candidates, screened at half depth by what is predicted of them, then by their cross-entropy; the best are scored."""
        model, method = self.fit(), self.method
        prompts = self.admitted(self.candidates(elites, step))
        if not prompts:
            return self.score([], None)
        self.grow()
        explored = self.slots(min(method.explored, method.children - 1)) if method.explored else []
        read = self.writer.read(prompts)
        bags = [self.words.of(ids) for ids in prompts]
        mean, sd = model.predict(bags, read.means)
        value = mean + method.explore * sd * torch.randn(len(mean), generator=self.bench.generator)
        order = value.argsort(descending=True, stable=True)
        chosen: list[tuple[int, ...]] = []
        kept: list[ScreenedSentences] = []
        taken: list[set[int]] = []
        for part in order.split(3 * method.children):
            screened = self.writer.screen(read.pick(part))
            rows = []
            for row in self._keeps(screened.measures).nonzero()[:, 0].tolist():
                words = set(bags[int(part[row])])
                if len(chosen) < method.children - len(explored) and all(len(words & other) <= _ALIKE * len(words) for other in taken):
                    taken.append(words)
                    rows.append(row)
                    chosen.append(prompts[int(part[row])])
            kept.append(screened.pick(torch.tensor(rows, dtype=torch.long)))
            if len(chosen) == method.children - len(explored):
                break
        if explored:
            kept.append(self.writer.screen(self.writer.read(explored)))
        return self.score(chosen + explored, ScreenedSentences.joined(kept))

    # ---- scores and what is learned from them -----------------------------------------------------------------------

    def score(self, prompts: Sequence[tuple[int, ...]], screened: ScreenedSentences | None) -> ScoredPrompts:
        """Exact scores on the step's contexts, remembered."""
        memory, device = self.bench.memory, self.bench.scorer.runner.device
        if not prompts or screened is None:
            none = torch.zeros(0, device=device)
            return ScoredPrompts(as_ids([], device), none, none)
        ids = as_ids(prompts, device)
        scored = ScoredPrompts(ids, self.scorer.objectives(ids), screened.cross_entropy.to(device))
        check_finite(self.bench.scorer.runner, self.scorer.contexts, scored)
        everything = ScoredPrompts(ids.cpu(), scored.objective.cpu(), screened.cross_entropy)
        residuals, measures = screened.residuals, screened.measures
        if "ids" in memory:
            everything = ScoredPrompts(memory["ids"], memory["scores"], memory["measures"][:, 0]).join(everything)
            residuals, measures = torch.cat([memory["residuals"], residuals]), torch.cat([memory["measures"], measures])
        memory.update(ids=everything.ids, scores=everything.objective, residuals=residuals, measures=measures)
        return scored

    def good_prompts(self) -> set[tuple[int, ...]]:
        """Scored prompts that keep the limits."""
        prompts = as_prompts(self.bench.memory["ids"])
        return {prompts[i] for i in self._good().nonzero()[:, 0].tolist()}

    def disagreement(self, n: int = 24) -> list[str]:
        """One line where the objective and the answers' log-odds disagree over n scored sentences, from the best to the worst."""
        memory, scorer, device = self.bench.memory, self.scorer, self.bench.scorer.runner.device
        order = memory["scores"].argsort(descending=True, stable=True)
        rows = order[torch.linspace(0, len(order) - 1, min(n, len(order))).round().long()]
        if len(rows) < 8:
            return []
        prompts = [as_prompts(memory["ids"])[i] for i in rows.tolist()]
        answers = Scorer(scorer.runner, answer_log_odds(), scorer.contexts, scorer.optimizations, scorer.chunk.tokens)
        moved = scorer.objective.sign * answers.objectives(as_ids(prompts, device)).cpu()
        r = float(spearmanr(memory["scores"][rows].numpy(), moved.numpy()).statistic)
        quarter = len(rows) // 4
        best, rest = float(moved[:quarter].mean()), float(moved[quarter:].mean())
        if r >= _AGREES and best > rest:
            return []
        return [
            f"the search moves the direction, not the behaviour: over {len(rows)} scored sentences the objective's rank correlation with the "
            f"answers' log-odds is {r:+.2f}, and its best quarter moves them by {best - rest:+.2f} more than the rest"
        ]

    def differentiate(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """The objective's gradient at the embeddings, mean over prompts and positions."""
        device = self.bench.scorer.runner.device
        slopes = [self.scorer.gradients(as_ids([prompt], device)).mean((0, 1)) for prompt in prompts]
        self.bench.memory["slope"] = torch.stack(slopes).mean(0).cpu()

    def fit(self, probe: bool | None = None) -> WordEffectModel:
        """What predicts scores: words and probe, or (probe=False) words alone, whose effects bias the writing."""
        memory, words = self.bench.memory, self._with_slope()
        bags = [words.of(ids) for ids in as_prompts(memory["ids"])]
        return fit_effects(words, bags, memory["residuals"], memory["scores"], self.method.probe if probe is None else probe)

    def _with_slope(self) -> CandidateWords:
        """The candidate words with the gradient's prediction of each, standardised."""
        if "slope" not in self.bench.memory:
            return self.words
        runner = self.bench.scorer.runner
        rows = runner.embeddings()[self.words.tokens]
        raw = rows.float().cpu() @ self.bench.memory["slope"].float()
        return replace(self.words, slope=(raw - raw.mean()) / raw.std().clamp(min=1e-9))

    def elites(self) -> Ids:
        """The best prompts that keep the limits, each with under half of its words in one before it."""
        return as_ids(self._diverse(self._good(), self.method.population), self.bench.scorer.runner.device)

    def _diverse(self, among: Tensor, n: int) -> list[tuple[int, ...]]:
        """The n best of some scored prompts, each with at most half of its words in one before it."""
        order = self.bench.memory["scores"].masked_fill(~among, -torch.inf).argsort(descending=True, stable=True).tolist()
        prompts = as_prompts(self.bench.memory["ids"])
        kept: list[tuple[int, ...]] = []
        for row in order[: int(among.sum())]:
            words = set(self.words.of(prompts[row]))
            if all(len(words & set(self.words.of(other))) <= len(words) / 2 for other in kept):
                kept.append(prompts[row])
            if len(kept) == n:
                break
        return kept

    def strongest(self) -> list[tuple[int, ...]]:
        """The best prompts whatever their cross-entropy: a strong word in too short a sentence can become fluent by what is added."""
        return self._diverse(torch.ones_like(self._good()), self.method.population)

    # ---- proposals --------------------------------------------------------------------------------------------------

    def pushes(self, opening: tuple[int, ...], n: int) -> list[Tensor]:
        """n pushes along the objective's own direction, in strengths 1 to 3 (tenths of the residual's usual norm); none where the
        objective has no direction."""
        found = direction_of(self.bench.scorer.objective)
        if found is None:
            return []
        site, vector = found
        self.bench.tools["push_site"] = site
        scale = 0.1 * self.writer.norm(opening, site)
        return [(1 + i % 3) * scale * vector / vector.norm() for i in range(n)]

    def slots(self, n: int) -> list[tuple[int, ...]]:
        """Templates with one word: those that half-depth residuals predict to be best; without a probe, by the gradient and the model."""
        bank, words = self.bank(), self._with_slope()
        if not len(bank.words):
            return []
        if self.method.probe:
            mean, sd = self.fit().predict([self.words.of(ids) for ids in bank.prompts], bank.means)
            value = mean + sd * torch.randn(len(mean), generator=self.bench.generator)
        else:
            value = words.slope[bank.words] + 0.15 * bank.log_probs
        picked = self._unlike(bank, value.argsort(descending=True, stable=True).tolist(), 2 * n)
        if not picked:
            return []
        whole = self.writer.screen(self.writer.read([bank.prompts[row] for row in picked])).measures[:, 1] <= self.bench.memory["limits"][1]
        return [bank.prompts[row] for row, ok in zip(picked, whole.tolist(), strict=True) if ok][:n]

    def _unlike(self, bank: WordBank, order: list[int], n: int) -> list[int]:
        """The first n of the bank's new prompts in this order whose words' embeddings are not near to one before."""
        vectors, fresh = self.words.vectors[bank.words], set(self.admitted(bank.prompts))
        picked: list[int] = []
        for row in order:
            if bank.prompts[row] in fresh and all(float(vectors[row] @ vectors[other]) < _NEAR for other in picked):
                picked.append(row)
            if len(picked) == n:
                break
        return picked

    def bank(self) -> WordBank:
        """Words read so far, each once in its likeliest template with one gap: at first those that the model finds likeliest there."""
        if "bank" not in self.bench.memory:
            rank = self._templates().rank
            self._read_words(rank.argsort(stable=True)[: self.method.slot_reads])
        memory, prompts = self.bench.memory, self.bench.tools.setdefault("bank", [])
        words, templates = memory["bank"], self._templates()
        prompts += [self.filled(templates.single[int(templates.where[w])], [int(w)]) for w in words[len(prompts) :]]
        return WordBank(words, templates.log_probs[words], prompts, memory["bank_means"])

    def grow(self) -> None:
        """Reads words whose embeddings are nearest to those of the bank's best so far: a word can be strong that the model hardly
        expects after a general opening."""
        bank = self.bank()
        if not self.method.probe or not self.method.near_reads or not len(bank.words):
            return
        mean, _ = self.fit().predict([self.words.of(ids) for ids in bank.prompts], bank.means)
        best = bank.words[mean.topk(min(_GROW_FROM, len(mean))).indices]
        near = self._near(best)
        near[bank.words] = -torch.inf
        self._read_words(near.topk(min(self.method.near_reads, int(near.isfinite().sum()))).indices)

    def _near(self, words: Tensor) -> Float[Tensor, " word"]:
        """How near each candidate is to the nearest of some words, in standard deviations of its own cosines (a word near to all is
        near to none)."""
        vectors = self.words.vectors
        if "cosines" not in self.bench.tools:
            sample = vectors[:: max(1, len(vectors) // 512)]
            cosines = vectors @ sample.T
            self.bench.tools["cosines"] = (cosines.mean(1), cosines.std(1).clamp(min=1e-6))
        centre, sd = self.bench.tools["cosines"]
        return ((vectors @ vectors[words].T - centre[:, None]) / sd[:, None]).max(1).values

    def _templates(self) -> OneGapTemplates:
        """The templates with one gap, each candidate word's best among them, and how likely the word is there."""
        if "templates" not in self.bench.tools:
            single = [template for template in self.form.slots if template.count("{}") == 1]
            nothing = torch.full((1, len(self.words.tokens)), -torch.inf)
            table = torch.stack([self.next_word(template.split("{}")[0].rstrip()) for template in single]) if single else nothing
            rank, where = (-table).argsort(dim=1, stable=True).argsort(dim=1, stable=True).min(0)
            self.bench.tools["templates"] = OneGapTemplates(single, where, rank, table.gather(0, where[None])[0])
        return self.bench.tools["templates"]

    def _read_words(self, words: Tensor) -> None:
        """Reads words in their templates to half depth, those left of the gap once; words whose template changes its tokens are left out."""
        templates, memory, runner = self._templates(), self.bench.memory, self.bench.scorer.runner
        known = [memory["bank"]] if "bank" in memory else []
        means = [memory["bank_means"]] if known else []
        for number, template in enumerate(templates.single):
            left = self.encode(template.split("{}")[0].rstrip())
            chosen = [int(w) for w in words if int(templates.where[w]) == number]
            made = [(w, self.filled(template, [w])) for w in chosen]
            made = [(w, ids) for w, ids in made if ids[: len(left)] == left and self.words.of(ids[len(left) :]) == [w] and len(ids) > len(left)]
            alive = all_survive(runner, self.bench.scorer.contexts, [ids for _, ids in made]) if made else []
            made = [entry for entry, ok in zip(made, alive, strict=True) if ok]
            if made:
                known.append(torch.tensor([w for w, _ in made]))
                means.append(self.writer.means_after(left, [ids[len(left) :] for _, ids in made]))
        memory["bank"] = torch.cat(known) if known else torch.zeros(0, dtype=torch.long)
        memory["bank_means"] = torch.cat(means) if means else torch.zeros(0, runner.shape.d_model)

    def word_effects(self) -> tuple[Float[Tensor, " word"], Float[Tensor, " word"]]:
        """What each candidate word is expected to do and how sure that is, in standard deviations of the scores: the words' own model, and
        for the bank's words what half-depth residuals predict of them."""
        mean, spread = self.fit(probe=False).word_effects()
        bank = self.bank()
        if self.method.probe and len(bank.words):
            model = self.fit()
            predicted, sd = model.predict([self.words.of(ids) for ids in bank.prompts], bank.means)
            mean = mean.clone()
            mean[bank.words] += (predicted - predicted.mean()) / model.sd
            spread = spread.clone()
            spread[bank.words] = (sd / model.sd).minimum(spread[bank.words])
        return mean, spread

    def filled(self, template: str, words: Sequence[int]) -> tuple[int, ...]:
        """A template with candidate words (by place) in its gaps."""
        first, *rest = template.split("{}")
        texts = [self.text([int(self.words.tokens[word])]) for word in words]
        return self.encode(first + "".join(word + part for word, part in zip(texts, rest, strict=True)))

    def next_word(self, left: str) -> Float[Tensor, " word"]:
        """log p of every candidate word after some text, on the CPU; each text is run once."""
        known = self.bench.tools.setdefault("next_word", {})
        if left not in known:
            known[left] = self.writer.next_log_probs(self.encode(left))[self.words.tokens.to(self.writer.usable.device)].cpu()
        return known[left]

    def candidates(self, elites: list[tuple[int, ...]], step: int) -> list[tuple[int, ...]]:
        """Newly written sentences (every `write_every` steps), edits, templates with one word, and pairs."""
        mean, spread = self.word_effects()
        strongest = self.strongest()
        writes = self.method.written if step % self.method.write_every == 1 or self.method.write_every == 1 else 0
        written = self.write([self._draft(mean, spread, [elites, strongest][i // 2 % 2], i) for i in range(writes)])
        edited = self._edits(mean, spread, elites, self.method.edited - self.method.edited // 3)
        edited += self._edits(mean, spread, strongest, self.method.edited // 3)
        return written + edited + self._filled(mean, spread) + (self._joined() if self.method.joins else [])

    def _filled(self, mean: Tensor, spread: Tensor) -> list[tuple[int, ...]]:
        """Templates with words in their gaps that a draw from what is known and the model's own probability prefer."""
        made = []
        for i in range(self.method.filled if self.form.slots else 0):
            template = self.form.slots[i % len(self.form.slots)]
            drawn = mean + self.method.explore * spread * torch.randn(len(mean), generator=self.bench.generator)
            value = 4 * drawn + 0.5 * self.next_word(template.split("{}")[0].rstrip())
            made.append(self.filled(template, value.topk(template.count("{}")).indices.tolist()))
        return made

    def _joined(self) -> list[tuple[int, ...]]:
        """Two good prompts one after the other: the pairs of the greatest sums that fit into the length."""
        memory = self.bench.memory
        prompts = as_prompts(memory["ids"])
        best = memory["scores"].argsort(descending=True, stable=True)[:_PARENTS].tolist()
        pairs = [(a, b) for a in best for b in best if a != b and len(prompts[a]) + len(prompts[b]) <= self.method.length]
        pairs.sort(key=lambda pair: -float(memory["scores"][list(pair)].sum()))
        texts = [f"{self.text(prompts[a])} {self.text(prompts[b])}" for a, b in pairs]
        seen = set(prompts)
        made = [ids for ids in (self.encode(text) for text in texts if self.form.accepts(text)) if ids not in seen]
        return made[: self.method.joined]

    def _good(self) -> Tensor:
        """Scored prompts that keep the limits."""
        return self._keeps(self.bench.memory["measures"])

    def _keeps(self, measures: Tensor) -> Tensor:
        return (measures <= self.bench.memory["limits"]).all(1)

    def _draft(self, mean: Tensor, spread: Tensor, elites: list[tuple[int, ...]], number: int) -> SentenceDraft:
        """A sentence to write: a general opening, or an elite up to a word; biased, and pushed towards what good sentences share."""
        generator = self.bench.generator
        pick = lambda n: int(torch.randint(n, (1,), generator=generator))  # noqa: E731
        if elites and number % 2:
            opening = self._cut(elites[pick(len(elites))], pick)
        else:
            openings = [self.encode(text) for text in self.form.openings]
            opening = openings[pick(len(openings))]
        strength = self.method.bias[number % len(self.method.bias)]
        return SentenceDraft(opening, self._bias(mean, spread, strength), self._towards_the_best(number))

    def _bias(self, mean: Tensor, spread: Tensor, strength: float) -> Float[Tensor, " d_vocab"]:
        """Nats for every token that begins a word: a Thompson draw of its effect."""
        drawn = mean + self.method.explore * spread * torch.randn(len(mean), generator=self.bench.generator)
        bias = torch.zeros(len(self.writer.usable))
        bias[self.words.tokens] = (strength * drawn).clamp(-8, 8)
        return bias.to(self.bench.scorer.runner.device)

    def _towards_the_best(self, number: int) -> Tensor | None:
        """Nought, one or two times the way from the mean residual to that of the best eighth."""
        times = number % 3
        if not self.method.steering or not times:
            return None
        scores, residuals = self.bench.memory["scores"], self.bench.memory["residuals"]
        best = scores.topk(max(1, len(scores) // 8)).indices
        return times * (residuals[best].mean(0) - residuals.mean(0))

    def _cut(self, prompt: tuple[int, ...], pick: Any) -> tuple[int, ...]:
        spans = self._spans(prompt)
        keep = min(len(spans) - 1, 2 + pick(max(1, len(spans) - 2)))
        return tuple(token for span in spans[:keep] for token in span)

    def _spans(self, prompt: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Tokens by word; punctuation is a span of its own."""
        spans: list[list[int]] = []
        for token in prompt:
            letters = self.writer.letters[token]
            if not spans or self.writer.begins[token] or not letters or not self.writer.letters[spans[-1][-1]]:
                spans.append([])
            spans[-1].append(token)
        return [tuple(span) for span in spans]

    def _edits(self, mean: Tensor, spread: Tensor, elites: list[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
        if not elites:
            return []
        generator, kinds = self.bench.generator, ["replace", "insert", "link", "replace", "delete", "cross", "replace", "insert"]
        pick = lambda n: int(torch.randint(n, (1,), generator=generator))  # noqa: E731
        tables = self.writer.log_probs(elites, self.words.tokens)
        made = []
        for number in range(n):
            which = min(pick(len(elites)), pick(len(elites)))
            spans, kind = self._spans(elites[which]), kinds[number % len(kinds)]
            drawn = mean + self.method.explore * spread * torch.randn(len(mean), generator=generator)
            made.append(self._edit(kind, spans, elites, tables[which], drawn * self.method.bias[pick(len(self.method.bias))], pick))
        return [prompt for prompt in made if prompt]

    def _edit(
        self, kind: str, spans: list[tuple[int, ...]], elites: list[tuple[int, ...]], table: Tensor, value: Tensor, pick: Any
    ) -> tuple[int, ...]:
        places = [i for i in range(1, len(spans)) if self.writer.letters[spans[i][0]]]
        flat = lambda parts: tuple(token for span in parts for token in span)  # noqa: E731
        if kind == "cross":
            other = self._spans(elites[pick(len(elites))])
            return flat(spans[: 1 + pick(max(1, len(spans) - 1))] + other[1 + pick(max(1, len(other) - 1)) :])
        if not places:
            return ()
        at = places[pick(len(places))]
        if kind == "delete":
            return flat(spans[:at] + spans[at + 1 :])
        start = sum(map(len, spans[:at]))
        if kind == "link":
            join = self.encode(self.form.joins[pick(len(self.form.joins))], inner=True)
            word = int(self.words.tokens[int((value + 0.3 * table[start]).argmax())])
            return flat([*spans[: at + 1], join, (word,), *spans[at + 1 :]])
        word = int(self.words.tokens[int((value + table[start]).argmax())])
        return flat([*spans[:at], (word,), *spans[at + (kind == "replace") :]])


def _most_natural(scored: ScoredPrompts, n: int) -> list[tuple[int, ...]]:
    prompts = as_prompts(scored.ids)
    return [prompts[i] for i in scored.cross_entropy.argsort(stable=True)[:n].tolist()]


def _candidate_words(writer: SentenceWriter) -> CandidateWords:
    """Lower-case words of one token that begin after a space."""
    tokens = torch.nonzero(writer.lower)[:, 0].cpu()
    if not len(tokens):
        raise UserError("the vocabulary has no lower-case word that may be used: a search over sentences needs some (see the lexicon)")
    vectors = writer.runner.embeddings().float().cpu()
    vectors = torch.nn.functional.normalize(vectors[tokens] - vectors[tokens].mean(0), dim=-1)
    row = torch.full((writer.runner.shape.d_vocab,), -1)
    row[tokens] = torch.arange(len(tokens))
    return CandidateWords(tokens, vectors, torch.zeros(len(tokens)), row)


def both_sides(contexts: Contexts, n: int) -> Contexts:
    """n contexts, those of each matching answer in turn, so that no answer is preferred."""
    whole = counterbalanced([context.item for context in contexts])
    sides: dict[tuple[int, ...], list[Any]] = {}
    for context in contexts:
        sides.setdefault(context.answers[0] if whole else context.answers[0][:1], []).append(context)
    turns = max(map(len, sides.values()))
    chosen = [side[i] for i in range(turns) for side in sides.values() if i < len(side)]
    return replace(contexts, items=tuple(chosen[:n]))


def direction_of(objective: Objective) -> tuple[Site, Float[Tensor, " d_model"]] | None:
    """Where and whither the objective's first term along a direction or latents would push the residual stream."""
    for weight, term in terms_of(objective):
        if isinstance(term, ProjectionObjective):
            return replace(term.site, position="decision"), weight * term.vector.float()
        if isinstance(term, LatentActivationObjective):
            rows = term.sae.W_dec[list(term.latents)].float()  # type: ignore[attr-defined]
            return term.sites[0], weight * (torch.tensor(term.weights) @ rows.cpu())
    return None
