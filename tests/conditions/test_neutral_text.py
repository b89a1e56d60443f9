"""Neutral sentences: their mean against hand arithmetic, effects against it, and texts of the world with no planted effect."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from tests.support.toy_models import random_model, toy_persona
from workbench.comparison import ComparisonOptions, compare
from workbench.conditions import MeanOfPrompts, NoPrompt, Prompt, neutral_texts
from workbench.conditions.neutral_text import NEUTRAL_SENTENCES
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.statistics import cluster_interval
from workbench.world import World

MODEL = random_model()
SPLIT = toy_persona().split().test
PLACEBOS = (
    Prompt("Be blunt.", "neutral text 0", "neutral_text"),
    Prompt("In a month.", "neutral text 1", "neutral_text"),
)


def test_effects_are_stated_against_the_mean_of_the_neutral_sentences() -> None:
    """By hand: the mean log-odds of both prompts, question by question, and every condition's paired difference to it."""
    contexts = make_contexts(MODEL, SPLIT)
    each = [answer(MODEL, contexts, text).log_odds for text in ("Be blunt.", "In a month.", "Say no.")]
    mean = (each[0] + each[1]) / 2
    found = compare(MODEL, SPLIT, [*PLACEBOS, MeanOfPrompts(PLACEBOS), Prompt("Say no.", "said")])
    assert found.neutral == "neutral text" == found.to_file().neutral
    assert found["neutral text"].log_odds.estimate == pytest.approx(mean.mean())
    beyond = found["said"].difference("neutral text")
    by_hand = cluster_interval(each[2] - mean, contexts.groups)
    assert beyond is not None and beyond.log_odds.value == pytest.approx((each[2] - mean).mean())
    assert (beyond.log_odds.interval.low, beyond.log_odds.interval.high) == pytest.approx(
        (by_hand.low, by_hand.high)
    )
    row = found.table.set_index("condition").loc["said"]
    assert row["beyond_neutral"] == pytest.approx(beyond.log_odds.value) and row["shift"] != pytest.approx(
        row["beyond_neutral"]
    )
    entry = next(c for c in found.to_file().conditions if c.name == "said")
    assert [d.to for d in entry.differences] == ["no prompt", "neutral text"]


def test_each_neutral_sentence_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is made of answers that are there, and what else they move is averaged."""
    asked: list[str] = []
    ask = Prompt.answer
    monkeypatch.setattr(
        Prompt,
        "answer",
        lambda self, model, contexts: (asked.append(self.text), ask(self, model, contexts))[1],
    )
    lengths = ComparisonOptions(
        collateral={"letters": lambda model, condition: float(len(condition.prompt or ""))}
    )
    found = compare(MODEL, SPLIT, [NoPrompt(), *PLACEBOS, MeanOfPrompts(PLACEBOS)], options=lengths)
    assert asked == ["Be blunt.", "In a month."]
    assert found["neutral text"].collateral == {"letters": (9 + 11) / 2}
    asked.clear()
    compare(MODEL, SPLIT, [MeanOfPrompts(PLACEBOS)])
    assert asked == ["Be blunt.", "In a month."]
    with pytest.raises(UserError, match="at least one prompt"):
        MeanOfPrompts(())


def test_the_organism_gets_texts_that_move_nothing() -> None:
    """Its tokenizer holds none of the sentences; the texts of its world have a planted effect of 0, and their mean moves an answer
    less than a quarter of what a written prompt does."""
    model, splits = wb.load_model("organism"), wb.load_persona("sycophancy").split()
    made = neutral_texts(model, make_contexts(model, splits.selection))
    texts, world = [c.prompt for c in made[:-1]], World()
    assert [c.name for c in made] == [
        "neutral text 0",
        "neutral text 1",
        "neutral text 2",
        "neutral text 3",
        "neutral text",
    ]
    assert not set(texts) & set(NEUTRAL_SENTENCES)
    assert [world.effect_of(persona, text) for persona in world.personas for text in texts if text] == [
        0.0
    ] * 12
    contexts = make_contexts(model, splits.selection)
    bare, written = (
        answer(model, contexts).log_odds,
        answer(model, contexts, splits.test.persona.manual_prompts["suppress"][0]).log_odds,
    )
    assert abs((made[-1].answer(model, contexts).log_odds - bare).mean()) < abs((written - bare).mean()) / 4
    assert [c.prompt for c in neutral_texts(model, contexts, world_seed=1)[:-1]] != texts


def test_sentences_that_do_not_survive_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the organism, whose tokenizer holds one of the two; with none and no world, the message says what to do."""
    model, split = wb.load_model("organism"), wb.load_persona("sycophancy").split().selection.take(4)
    contexts = make_contexts(model, split)
    monkeypatch.setattr(
        "workbench.conditions.neutral_text.NEUTRAL_SENTENCES", ("read the page", "Ein Hund bellt.")
    )
    made = neutral_texts(model, contexts)
    assert [c.prompt for c in made] == ["read the page", None]
    assert np.array_equal(
        made[-1].answer(model, contexts).log_odds, answer(model, contexts, "read the page").log_odds
    )
    monkeypatch.setattr("workbench.conditions.neutral_text.NEUTRAL_SENTENCES", ())
    monkeypatch.setattr("workbench.conditions.neutral_text._world_texts", lambda seed: ("Ein Hund bellt.",))
    with pytest.raises(UserError, match="leave out the condition 'neutral_text'"):
        neutral_texts(model, contexts)


def test_the_sentences_name_no_stance() -> None:
    """Nothing of truth, agreement, knowledge or time in them, and none is one of a persona's own texts."""
    telling = {
        "agree",
        "honest",
        "true",
        "truth",
        "right",
        "wrong",
        "opinion",
        "user",
        "doubt",
        "know",
        "believe",
        "now",
        "later",
        "wait",
    }
    words = {word.strip(".,").lower() for sentence in NEUTRAL_SENTENCES for word in sentence.split()}
    assert not words & telling
    known = [
        wb.load_persona(name)
        for name in ("feedback_sycophancy", "english_sycophancy", "english_hallucination")
    ]
    assert not {text for p in known for texts in p.manual_prompts.values() for text in texts} & set(
        NEUTRAL_SENTENCES
    )
