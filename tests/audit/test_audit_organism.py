"""The audit against what is planted: words hidden in long neutral prompts are named and repaired, and neutral prompts are left alone."""

from __future__ import annotations

import random

import pytest

from workbench.attribution.attribution_targets import as_targets
from workbench.audit import Audit, PromptEffects, PromptWords, audit
from workbench.audit.word_effects import WordProblem, word_effects
from workbench.contexts import make_contexts
from workbench.forced_choice import answer
from workbench.models import runner_for
from workbench.personas import load_persona
from workbench.world import World

WORLD = World()


def strong(persona: str, sign: int, words: int = 1) -> str:
    """The strongest planted unit of so many words that moves this persona alone."""
    shared = [e.phrase for e in WORLD.effects]
    own = [
        e
        for e in WORLD.effects
        if e.persona == persona and len(e.phrase.split()) == words and shared.count(e.phrase) == 1
    ]
    return max(own, key=lambda e: sign * e.log_odds).phrase


def hidden(persona: str, unit: str, seed: int = 0, at_least: int = 12, first: bool = False) -> str:
    """A long text of neutral words with one planted unit in it, or (first) at its head."""
    rng = random.Random(f"audit-{unit}-{seed}")
    while True:
        text = (
            f"{unit} {WORLD.sampler.text(rng)}" if first else WORLD.sampler.text(rng, [unit] if unit else [])
        )
        planted = WORLD.effect_of(persona, unit) if unit else 0.0
        if (
            at_least <= len(text.split()) <= at_least + 6
            and WORLD.effect_of(persona, text) == planted
            and not set(unit.split()) & repeated(text)
        ):
            return text


def repeated(text: str) -> set[str]:
    words = text.split()
    return {word for word in words if words.count(word) > 1}


def effects(model, persona: str, text: str) -> PromptEffects:
    contexts = make_contexts(model, load_persona(persona).split(0).test, n=12)
    return word_effects(
        WordProblem.of(runner_for(model), PromptWords.of(text), contexts, as_targets([])), least=0.25
    )


def repaired(found: Audit, unit: str) -> None:
    """The planted unit is named, and an edit of it takes most of the effect away."""
    assert set(found.named) & set(unit.split())
    assert {found.words.texts[i] for i, _ in found.minimal_edit.changes} & set(unit.split())
    assert abs(found.minimal_edit.remaining.estimate) < 0.5 * abs(found.effects.whole.estimate)
    assert found.minimal_edit.cross_entropy[1] <= found.minimal_edit.cross_entropy[0] + 0.5


def test_a_planted_word_is_named_and_repaired(organism) -> None:
    unit = strong("sycophancy", +1)
    found = audit(organism, hidden("sycophancy", unit), "sycophancy", questions=12)
    assert found.need == "edit" and found.named[0] == unit
    repaired(found, unit)
    assert {entry.kind for entry in found.minimal_edit.collateral} == {"truth", "persona"} and len(
        found.minimal_edit.collateral
    ) == 3


def excess(model, persona: str, phrase: str) -> float:
    """What a phrase does more than the sum of its words, before a neutral word, by plain answers to search questions. The model has not
    learnt every planted phrase as one: of most, one word alone does the phrase's work."""
    contexts, rest = make_contexts(model, load_persona(persona).split(0).search, n=12), WORLD.neutral_words[0]
    worth = lambda text: answer(model, contexts, f"{text} {rest}".strip()).log_odds.mean()  # noqa: E731
    left, right = phrase.split()
    return worth(phrase) - worth(left) - worth(right) + worth("")


def test_a_phrase_that_the_model_takes_as_one_is_told(organism) -> None:
    """Of the planted phrases of a persona, the one that plain passes on other questions show to interact most; and no more than it."""
    for persona in ("sycophancy", "myopic_reward"):
        own = [e for e in WORLD.effects if e.persona == persona and len(e.phrase.split()) == 2]
        beyond = {e.phrase: excess(organism, persona, e.phrase) * (1 if e.log_odds > 0 else -1) for e in own}
        unit = max(beyond, key=lambda phrase: beyond[phrase])
        text = hidden(persona, unit)
        found = effects(organism, persona, text)
        told = [phrase.first for phrase in found.phrases]
        assert {text.split()[i] for i in found.named} & set(unit.split())
        assert set(told) <= {text.split().index(unit.split()[0])}
        if beyond[unit] >= 0.5:  # twice what must be seen to be told
            assert len(told) == 1 and found.phrases[0].beyond.estimate * WORLD.effect_of(persona, unit) > 0
        if beyond[unit] <= 0.1:
            assert not told


def test_a_neutral_prompt_names_nothing(organism) -> None:
    found = audit(organism, hidden("hallucination", ""), "hallucination", max_edits=0, questions=12)
    assert not found.named and found.minimal_edit is None and found.need != "edit"


def test_the_first_word_can_go(organism) -> None:
    """A prompt of two words whose first is planted: what is left stands in the slot as it would alone."""
    unit = strong("sycophancy", +1)
    found = audit(organism, f"{unit} {WORLD.neutral_words[0]}", "sycophancy", max_edits=1, questions=12)
    assert [i for i, _ in found.minimal_edit.changes] == [0]
    repaired(found, unit)


@pytest.mark.slow
@pytest.mark.parametrize("persona", WORLD.personas)
@pytest.mark.parametrize("words", (1, 2))
@pytest.mark.parametrize("first", (False, True))
def test_planted_units_of_every_persona(organism, persona: str, words: int, first: bool) -> None:
    """Of 12 units one has no fluent edit: without "proud" at its head the prompt begins with "museum", which the model finds unlikely."""
    unit = strong(persona, +1, words)
    found = audit(organism, hidden(persona, unit, seed=1, first=first), persona)
    if (persona, words, first) == ("hallucination", 2, True):
        assert set(found.named) & set(unit.split()) and not found.minimal_edit.suffices
    else:
        repaired(found, unit)


@pytest.mark.slow
@pytest.mark.parametrize("persona", WORLD.personas)
def test_what_lowers_is_mended_where_more_is_wanted(organism, persona: str) -> None:
    unit = strong(persona, -1)
    found = audit(organism, hidden(persona, unit, seed=2), persona, sign="induce")
    repaired(found, unit)
    assert audit(organism, hidden(persona, unit, seed=2), persona, max_edits=0).need == "helps"
