"""The audit of one's own prompt: words and edits by hand arithmetic, the verb on a small random model, hostile text as text."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import random_model, toy_persona
from rich.console import Console

from workbench.answers import answer
from workbench.attribution.targets import as_targets
from workbench.audit import Audit, Words, audit
from workbench.audit.effects import WordProblem
from workbench.audit.mend import FLUENCY_RISE, Watched, find_mend
from workbench.audit.terminal import render
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.models import runner_for


@given(st.text(alphabet="ab ,.\n(日本", min_size=1).filter(str.strip))
def test_cutting_loses_nothing(text: str) -> None:
    words = Words.of(text)
    assert words.edited({}) == text.strip()
    assert "".join(piece.text for piece in words.tracked({})) == text.strip()


def test_edits_keep_punctuation_where_it_belongs() -> None:
    words = Words.of("Be kind, and (always) agree.")
    assert words.texts == ("Be", "kind,", "and", "(always)", "agree.")
    assert words.edited({1: "blunt"}) == "Be blunt, and (always) agree."
    assert words.edited({4: None}) == "Be kind, and (always)"
    assert words.edited({3: None, 4: None}) == "Be kind, and."
    assert words.only({0, 2}) == "Be, and."
    assert words.left_of(3, {1: None}) == "Be, and ("
    kinds = [(p.kind, p.text) for p in words.tracked({1: "blunt", 2: None})]
    assert kinds == [("kept", "Be "), ("old", "kind"), ("new", "blunt"), ("kept", ", "), ("old", "and"), ("kept", " (always) agree.")]


@pytest.fixture(scope="module")
def found() -> Audit:
    return audit(random_model(), "Be honest, say yes.", toy_persona(), max_edits=1, questions=4, tolerance=0.05)


def test_effects_add_up_to_what_the_prompt_does(found: Audit) -> None:
    """Four words: all coalitions are counted, so the words and the empty slot make up the whole effect."""
    persona = toy_persona()
    contexts = make_contexts(random_model(), persona.split(0).test, n=4)
    ask = lambda prompt: answer(random_model(), contexts, prompt).log_odds  # noqa: E731
    assert found.effects.whole.estimate == pytest.approx((ask("Be honest, say yes.") - ask(None)).mean(), abs=1e-4)
    added = sum(word.interval.estimate for word in found.effects.words) + found.effects.slot.estimate
    assert added == pytest.approx(found.effects.whole.estimate, abs=1e-4)
    assert np.isclose(found.table["effect"].sum() + found.effects.slot.estimate, found.effects.whole.estimate, atol=1e-4)


def test_what_is_shown_is_the_same_everywhere(found: Audit) -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(render(found))
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    assert json.loads(json.dumps(found.to_json()))["whole"]["estimate"] == found.effects.whole.estimate
    assert "not checked" in " ".join(found.notes)


@pytest.mark.parametrize(("prompt", "edits"), (("honest", 1), ("Be honest, say yes.", 2)))
def test_the_mend_is_what_its_text_does(prompt: str, edits: int) -> None:
    """Whatever edit is chosen: its words differ where it says, its effect is that of its text, and it is no less fluent than allowed."""
    runner, splits, words = runner_for(random_model()), toy_persona().split(0), Words.of(prompt)
    contexts = [make_contexts(runner, split, n=4) for split in (splits.search, splits.selection, splits.test)]
    problems = [WordProblem.of(runner, words, part, as_targets([])) for part in contexts]
    mend = find_mend(*problems, (Watched(), Watched()), edits, 0.3)
    assert 1 <= len(mend.changes) <= edits and words.edited(dict(mend.changes)) == mend.text
    assert "".join(p.text for p in mend.pieces if p.kind != "new") == prompt
    effect = answer(runner, contexts[2], mend.text).log_odds - answer(runner, contexts[2]).log_odds
    assert mend.remaining.estimate == pytest.approx(effect.mean(), abs=1e-4)
    assert mend.fluency[1] <= mend.fluency[0] + FLUENCY_RISE
    assert not mend.suffices  # one group of questions shows no equivalence


def test_hostile_words_are_text(tmp_path) -> None:
    shown = audit(random_model(), "Be <img/onerror=alert(1)> &lt; honest.", toy_persona(), max_edits=0, questions=4)
    shown.save_html(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert "<img" not in page and "&lt;img/onerror" in page and "&amp;lt;" in page
    assert "<img" not in shown._repr_html_() and "<script" not in page


def test_mistakes_are_told() -> None:
    for prompt, options in (("  ", {}), ("Be honest.", {"max_edits": -1}), ("Be honest.", {"tolerance": 0.0}), ("Be honest.", {"sign": "less"})):
        with pytest.raises(UserError):
            audit(random_model(), prompt, toy_persona(), **options)
