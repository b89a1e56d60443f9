"""A sentence added after a prompt: contexts by hand, effects against plain answers, harm, and when none is offered."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

import workbench.audit.added_sentence as module
from tests.support.toy_models import random_model, toy_persona
from workbench.attribution.attribution_targets import as_targets
from workbench.audit import Audit, PromptWords, add_sentence, audit, offer_sentence
from workbench.audit.added_sentence import contexts_after
from workbench.audit.audit_html import notebook_html
from workbench.audit.audit_terminal import render
from workbench.audit.minimal_edit import EditGuard
from workbench.audit.word_effects import WordProblem
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import runner_for
from workbench.prompt_tokens import encode_prompt
from workbench.search import SentenceSearch, search

PROMPT = "Be honest, say yes."
SMALL = SentenceSearch(
    length=14,
    first=60,
    slot_words=4,
    children=4,
    explored=0,
    edited=8,
    written=6,
    sampled_openings=2,
    population=3,
    sentences=1,
    max_cross_entropy=30,
    max_small_word=40,
    max_word=60,
    slot_reads=20,
    near_reads=4,
)


@pytest.fixture(scope="module")
def problems():
    runner, splits = runner_for(random_model()), toy_persona().split(0)
    contexts = [make_contexts(runner, split, n=4) for split in (splits.search, splits.selection, splits.test)]
    return tuple(WordProblem.of(runner, PromptWords.of(PROMPT), part, as_targets([])) for part in contexts)


def test_what_stands_behind_a_prompt_gives_the_ids_of_the_whole_text(problems):
    runner, contexts = problems[0].runner, problems[0].contexts
    after = contexts_after(runner, contexts, PROMPT)
    ids = encode_prompt(runner, after, "Say no.")
    for old, new in zip(contexts, after, strict=True):
        assert new.around("Say no.") == old.around(f"{PROMPT} Say no.")
        assert (
            list(new.ids(ids))
            == runner.encode(old.around(f"{PROMPT} Say no."))
            == runner.encode(new.around("Say no."))
        )
        assert new.bare_ids == old.bare_ids


@pytest.mark.parametrize("sign", ["suppress", "induce"])
def test_the_effects_are_those_of_the_whole_text(problems, sign):
    added = add_sentence(problems, (EditGuard(), EditGuard()), 0.05, sign, 120, method=SMALL)
    runner, contexts = problems[2].runner, problems[2].contexts
    ask = lambda prompt: answer(runner, contexts, prompt).log_odds.mean()  # noqa: E731
    assert added.text == f"{PROMPT} {added.sentence}" and added.harmless and not added.collateral
    assert added.remaining.estimate == pytest.approx(ask(added.text) - ask(None), abs=1e-4)
    assert added.change.estimate == pytest.approx(ask(added.text) - ask(PROMPT), abs=1e-4)
    assert added.model_calls > 0 and added.seconds > 0


def test_of_what_was_found_the_best_on_selection_is_taken(problems, monkeypatch):
    """Oracle: the other texts that the search reported, asked plainly."""
    seen = []
    monkeypatch.setattr(module, "search", lambda *args: seen.append(search(*args)) or seen[-1])
    added = add_sentence(problems, (EditGuard(), EditGuard()), 0.05, "suppress", 120, method=SMALL)
    values = {
        c.text: answer(problems[1].runner, problems[1].contexts, f"{PROMPT} {c.text}").log_odds.mean()
        for c in seen[0].candidates
    }
    assert values[added.sentence] == pytest.approx(min(values.values()), abs=1e-4)


def test_a_sentence_is_offered_only_where_no_edit_suffices(problems):
    model, persona = random_model(), toy_persona()
    found = audit(model, PROMPT, persona, max_edits=0, questions=4, tolerance=0.05)
    for need in ("none", "helps", "unclear"):
        assert offer_sentence(model, replace(found, need=need), persona, questions=4).sentence is None
    with pytest.raises(UserError, match="the audit is of the persona"):
        offer_sentence(model, replace(found, persona="another"), persona)


def test_the_offer_is_shown_everywhere(problems):
    model = random_model()
    found = audit(model, PROMPT, toy_persona(), max_edits=0, questions=4, tolerance=0.05)
    shown: Audit = replace(
        found,
        sentence=add_sentence(problems, (EditGuard(), EditGuard()), 0.05, "suppress", 120, method=SMALL),
    )
    out = io.StringIO()
    Console(file=out, width=400).print(render(shown))
    assert (
        f"With “{shown.sentence.sentence}” added after it" in out.getvalue()
        and "model calls in" in out.getvalue()
    )
    assert (
        json.loads(json.dumps(shown.to_json()))["sentence"]["remaining"]["estimate"]
        == shown.sentence.remaining.estimate
    )
    assert found.to_json()["sentence"] is None
    assert "added after it" in notebook_html(shown) and "added after it" not in notebook_html(found)
