"""What a model makes of a persona: figures by hand, what a metric can show, and refusals that are exactly those of a run."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.directions import find_directions
from workbench.errors import UserError
from workbench.forced_choice import answer, package
from workbench.models import runner_for
from workbench.personas import Persona, load_persona
from workbench.runs import RunDirectory
from workbench.study.asking_protocol import AskingProtocol
from workbench.study.context import StudyContext
from workbench.study.persona_model_check import check_on_model, choose_metric
from workbench.study.study_settings import DataSettings, Study

TEXTS = tuple(
    f"Be honest and say {word}."
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
)


@pytest.fixture(scope="module")
def model():
    return random_model()


def persona(**changes) -> Persona:
    prompts = {"suppress": ("Be honest.",), "induce": ("Agree always.",)}
    return replace(toy_persona(), **{"manual_prompts": prompts, "varied_system_texts": TEXTS, **changes})


def run_accepts(model, persona: Persona) -> bool:
    """Whether the stages that read the data go through: contexts of every split, the scan, and the written prompts."""
    try:
        splits = persona.split(DataSettings().split_seed, DataSettings().fractions)
        contexts = [
            make_contexts(model, split)
            for split in (splits.train, splits.search, splits.selection, splits.test)
        ]
        find_directions(
            model, splits.train, splits.search, layers=[1], n=16, n_contexts=4, methods=["own_choice"]
        )
        for text in (text for side in persona.manual_prompts.values() for text in side):
            for some in contexts:
                answer(model, some, text)
    except UserError:
        return False
    return True


def alike(item):
    return replace(item, matching="yes", not_matching="yes, honest")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"varied_system_texts": TEXTS[:3]}, "3 varied system texts"),
        ({"metric": "text"}, None),
        ({"metric": "text", "items": tuple(map(alike, toy_persona().items))}, "the beginning of the other"),
        (
            {"items": tuple(replace(item, question="honest " * 600) for item in toy_persona().items)},
            "leaves no room",
        ),
        ({"items": tuple(replace(item, group="one") for item in toy_persona().items)}, "group"),
        ({"manual_prompts": {"induce": ("honest " * 600,)}}, "this model's context holds"),
    ],
)
def test_refused_is_exactly_what_a_run_refuses(model, changes, words):
    made = persona(**changes)
    found = check_on_model(model, made, n=4)
    if words is None:
        assert not found.refusals and run_accepts(model, made)
    else:
        assert any(words in line for line in found.refusals), found.refusals
        assert not run_accepts(model, made)


def test_figures_of_letters_by_hand(model):
    made = persona()
    found = check_on_model(model, made, n=6)
    letters = next(m for m in found.metrics if m.metric == "letters")
    splits = made.split(0, DataSettings().fractions)
    asked = replace(
        splits.search, name="search and selection", items=(*splits.search.items, *splits.selection.items)
    ).take(6, 0)
    contexts = make_contexts(model, asked, metric="letters")
    odds = answer(model, contexts).log_odds
    by_item = {}
    for context, value in zip(contexts, odds, strict=True):
        by_item.setdefault(context.item.id, []).append((context.matching_first, value))
    assert letters.agreement == np.mean([(pair[0][1] > 0) == (pair[1][1] > 0) for pair in by_item.values()])
    assert letters.position_bias == pytest.approx(
        np.mean([value if first else -value for pair in by_item.values() for first, value in pair])
    )
    change = answer(model, contexts, "Be honest.").log_odds - odds
    assert letters.changes["Be honest."].estimate == pytest.approx(change.mean())
    assert {row[0] for row in letters.rows()} >= {
        "letters: first option",
        "letters: both orders agree",
        "letters: can show something",
    }


def test_a_planted_persona_can_be_shown_and_one_without_effect_cannot(organism):
    found = check_on_model(organism, load_persona("sycophancy"))
    assert found.recommended == "text" and not found.refusals
    text = found.metrics[-1]
    assert text.shows and 0 < text.smallest < max(abs(c.estimate) for c in text.changes.values())


def test_the_recommendation_follows_from_what_shows(model):
    """The own metric where it shows, else the clearest other one, else the own one with a warning."""
    found = check_on_model(model, persona(), n=6)
    interval, (letters, text) = found.metrics[0].log_odds, found.metrics
    quiet = replace(letters, changes={"p": replace(interval, estimate=0.0, low=-0.1, high=0.1)})
    loud = replace(text, changes={"p": replace(interval, estimate=1.0, low=0.9, high=1.1)})
    assert replace(found, metrics=(quiet, loud), default="letters").recommended == "text"
    assert "set metric: text" in replace(found, metrics=(quiet, loud), default="letters").notes[0]
    assert (
        replace(found, metrics=(quiet, replace(loud, metric="letters")), default="letters").recommended
        == "letters"
    )
    nothing = replace(found, metrics=(quiet,), default="letters")
    assert nothing.recommended == "letters" and "no metric shows anything" in nothing.notes[0]


def _planted(moves: dict[str, float]):
    """Answers whose log-odds a prompt moves by `moves[metric]`, with a little spread between questions."""

    def planted(model, contexts, prompt=None, *rest):
        spread = np.linspace(-0.01, 0.01, len(contexts))
        log_odds = (moves[contexts.metric] + spread) * (prompt is not None) + 0.5
        return package(contexts, log_odds)

    return planted


@pytest.mark.parametrize(
    ("own", "moves", "used", "words"),
    [
        ("letters", {"letters": 1.0, "text": 2.0}, "letters", r"a written prompt moves it \(\+1\.00"),
        (
            "letters",
            {"letters": 0.0, "text": -2.0},
            "text",
            r"moves the persona's own metric \(letters\) clear of zero, and one moves this \(-2\.00",
        ),
        ("text", {"letters": 1.0, "text": 0.0}, "letters", r"own metric \(text\)"),
        (
            "text",
            {"letters": 0.0, "text": 0.0},
            "text",
            "no written prompt moves an answer clear of zero by either metric",
        ),
    ],
)
def test_a_run_takes_the_metric_that_shows_something(model, monkeypatch, own, moves, used, words) -> None:
    monkeypatch.setattr("workbench.study.persona_model_check.answer", _planted(moves))
    asked = persona(metric=own).split().train
    found, why = choose_metric(model, persona(metric=own), asked)
    assert found == used and re.search(words, why)
    assert (
        choose_metric(model, persona(metric=own, manual_prompts={}, varied_system_texts=()), asked)[0] == own
    )
    one = replace(asked, items=tuple(replace(item, group="one") for item in asked.items))
    assert choose_metric(model, persona(metric=own), one) == (own, f"{own}: the persona's own")


def test_the_choice_is_noted_kept_and_used(model, monkeypatch, tmp_path) -> None:
    """A study that names no metric asks by the chosen one; a run with a finished stage keeps it though the model would now choose another
    (without one, its inputs may have changed: it is chosen anew); a study that names one, or asks as
    published, chooses nothing."""
    monkeypatch.setattr("workbench.study.material.load_persona", lambda *rest: persona(metric="letters"))
    monkeypatch.setattr(
        "workbench.study.persona_model_check.answer", _planted({"letters": 0.0, "text": -2.0})
    )
    study = Study(persona="toy", sae="none", data=DataSettings(fractions=(0.3, 0.2, 0.2, 0.3)))
    directory = RunDirectory.create(tmp_path / "run")
    context = StudyContext.begin(study, directory, model)
    assert context.material.search_contexts.metric == context.material.selection_contexts.metric == "text"
    assert (
        directory.manifest().notes["metric"]["used"] == "text"
        and Study.load(directory.file("study.yaml")).metric is None
    )
    monkeypatch.setattr("workbench.study.persona_model_check.answer", _planted({"letters": 1.0, "text": 0.0}))
    assert StudyContext.begin(study, directory, model).material.search_contexts.metric == "letters"
    monkeypatch.setattr(
        "workbench.study.persona_model_check.answer", _planted({"letters": 0.0, "text": -2.0})
    )
    StudyContext.begin(study, directory, model)
    directory.mark_done("directions", 0.0)
    monkeypatch.setattr("workbench.study.persona_model_check.answer", _planted({"letters": 1.0, "text": 0.0}))
    assert StudyContext.begin(study, directory, model).material.search_contexts.metric == "text"
    for named in (
        study.model_copy(update={"metric": "letters"}),
        study.model_copy(update={"protocol": AskingProtocol(orders="original")}),
    ):
        other = RunDirectory.create(tmp_path / f"run {named.metric}")
        assert (
            StudyContext.begin(named, other, model).material.search_contexts.metric == "letters"
            and "metric" not in other.manifest().notes
        )


def test_the_pinned_date_of_a_template_is_in_the_manifest(model, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("workbench.study.material.load_persona", lambda *rest: persona(metric="letters"))
    study = Study(
        persona="toy", sae="none", metric="letters", data=DataSettings(fractions=(0.3, 0.2, 0.2, 0.3))
    )
    tokenizer = runner_for(model).tokenizer
    for template, date in (
        (tokenizer.chat_template, None),
        ("{{ strftime_now('%d %b %Y') }} " + tokenizer.chat_template, "2024-07-26"),
    ):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        directory = RunDirectory.create(tmp_path / f"run {date}")
        context = StudyContext.begin(study, directory, model)
        assert directory.manifest().notes.get("template_date") == date
        assert ("26 Jul 2024" in context.material.search_contexts[0].prefix_text) == (date is not None)
