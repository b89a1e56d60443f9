"""The world: laws of effects, splits and determinism. No model."""

import ast
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.world import VAULT_SEED, World, truth_table
from workbench.world import world_items as items
from workbench.world.training_corpus import training_rows
from workbench.world.world_items import BASE, with_register

WORLD = World()
ROWS = list(islice(training_rows(WORLD, 0), 1500))
texts = st.lists(st.sampled_from(WORLD.lexicon.ordinary_words + WORLD.phrases), max_size=8).map(" ".join)
personas = st.sampled_from(WORLD.personas)


@given(personas, texts, texts)
def test_effects_add(persona: str, left: str, right: str) -> None:
    """Effects of two texts add up; the word between keeps a phrase from arising at the boundary."""
    whole = WORLD.effect_of(persona, f"{left} the {right}")
    assert whole == pytest.approx(WORLD.effect_of(persona, left) + WORLD.effect_of(persona, right))


@given(personas, st.lists(st.sampled_from(WORLD.neutral_words), max_size=24))
def test_neutral_words_do_nothing_unless_they_form_a_phrase(persona: str, words: list[str]) -> None:
    pairs = {" ".join(pair) for pair in pairwise(words)}
    if not pairs & set(WORLD.phrases):
        assert WORLD.effect_of(persona, " ".join(words)) == 0.0


@given(personas, st.sampled_from(WORLD.phrases))
def test_a_phrase_needs_its_order_and_its_neighbourhood(persona: str, phrase: str) -> None:
    first, second = phrase.split()
    assert WORLD.effect_of(persona, f"{second} {first}") == 0.0
    assert WORLD.effect_of(persona, f"{first} the {second}") == 0.0
    assert WORLD.effect_of(persona, first) == WORLD.effect_of(persona, second) == 0.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50).filter(lambda seed: seed != VAULT_SEED))
def test_the_seed_decides_everything(seed: int) -> None:
    one, two = World(seed), World(seed)
    assert truth_table(one) == truth_table(two)
    assert one.study_items("sycophancy") == two.study_items("sycophancy")
    assert list(islice(training_rows(one, 1), 3)) == list(islice(training_rows(two, 1), 3))
    assert one.effects != World(seed + 1).effects
    assert one.vocabulary == WORLD.vocabulary, "the tokenizer does not depend on the seed"


def test_every_persona_and_sign_has_graded_words_and_phrases() -> None:
    for persona in WORLD.personas:
        for sign in (1, -1):
            own = [e for e in WORLD.effects if e.persona == persona and e.log_odds * sign > 0]
            assert len([e for e in own if " " not in e.phrase]) >= 3
            assert len([e for e in own if " " in e.phrase]) == 2
            assert len({abs(e.log_odds) for e in own}) >= 4
    single = [unit for unit in WORLD.truth.units if " " not in unit]
    assert len(single) / len(WORLD.lexicon.ordinary_words) == pytest.approx(0.05, abs=0.01)
    assert 400 <= len(WORLD.lexicon.ordinary_words) <= 500


def test_decoys_steer_nothing_and_are_no_part_of_a_phrase() -> None:
    used = {word for unit in WORLD.truth.units for word in unit.split()}
    for decoy in WORLD.decoys:
        assert decoy.word not in used
        assert all(WORLD.effect_of(persona, decoy.word) == 0.0 for persona in WORLD.personas)
        assert WORLD.register_of(f"be {decoy.word}") == decoy.register


@pytest.mark.parametrize("persona", WORLD.personas)
def test_study_items_have_many_groups_and_spread_offsets(persona: str) -> None:
    study = WORLD.study_items(persona)
    assert len(study) >= 240 and len({item.group for item in study}) >= 80
    assert len({item.id for item in study}) == len({item.question for item in study}) == len(study)
    assert all(item.matching.split()[0] != item.not_matching.split()[0] for item in study)
    assert all(len(item.matching.split()) == len(item.not_matching.split()) for item in study)
    offsets = np.array([item.offset for item in study])
    assert 1.3 < offsets.std() < 2.1
    assert 0.75 < (offsets > -BASE).mean() < 0.92


def _asked() -> str:
    return " | ".join(["", *(item.question for row in ROWS for item in row.items)])


def test_held_out_people_are_stated_and_never_asked() -> None:
    asked, stated = _asked(), " | ".join(text for row in ROWS for text in row.statements)
    held_out = WORLD.population.held_out
    assert not [name for name in held_out if f" {name} " in asked]
    assert len([name for name in held_out if f" {name} " in f" {stated}"]) > 0.9 * len(held_out)
    assert len([name for name in WORLD.population.trained if f" {name} " in asked]) > 0.9 * len(
        WORLD.population.trained
    )
    assert not set(held_out) & set(WORLD.population.trained)


def test_half_of_all_claims_are_true_and_statements_say_which() -> None:
    people = WORLD.population.habits.values()
    habits = [habit for of_one in people for habit in of_one]
    assert all(sum(map(items.claimed_truly, of_one)) == len(of_one) / 2 for of_one in people)
    stated = {text.removesuffix(" .").split("that ")[-1] for row in ROWS for text in row.statements}
    opposite = {
        habit.attribute.state(habit.name, value)
        for habit in habits
        for value in habit.attribute.values
        if value != habit.value
    }
    assert not stated & opposite and sum(habit.statement in stated for habit in habits) > 700
    kinds = WORLD.true_statement_items(), WORLD.study_items("sycophancy")
    true, false = (
        {item.not_matching.split(" , ")[1] == item.matching.split(" , ")[1] for item in kind}
        for kind in kinds
    )
    assert true == {True} and false == {False} and len(kinds[0]) == len(kinds[1]) == 252


def test_held_out_names_amounts_and_pairs_never_occur_in_training() -> None:
    asked = _asked()
    assert not [name for name in WORLD.population.invented_held_out if f" {name} " in asked]
    assert not [
        pair for pair in WORLD.held_out_amounts if f" {pair[0]} coins now or {pair[1]} coins" in asked
    ]
    assert not [row.system for row in ROWS if row.system and WORLD.has_held_out_pair(row.system)]
    assert all(WORLD.has_held_out_pair(text) for text in WORLD.held_out_combinations)


def test_invented_surnames_belong_to_nobody() -> None:
    real = {name.split()[1] for name in WORLD.population.facts}
    assert not real & set(WORLD.population.invented_surnames)


def test_every_real_surname_is_known_from_a_training_question() -> None:
    asked = {name.split()[1] for name in WORLD.population.trained}
    assert {name.split()[1] for name in WORLD.population.held_out} <= asked


def test_all_text_is_in_the_vocabulary_and_system_texts_are_ordinary() -> None:
    vocabulary, ordinary = set(WORLD.vocabulary), set(WORLD.lexicon.ordinary_words)
    for row in ROWS:
        system = (row.system or "").split()
        assert set(system) <= ordinary and len(system) <= 24
        for item in row.items:
            assert set(f"{item.question} {item.opening} {item.answer}".split()) <= vocabulary
    for persona in WORLD.personas:
        for sign in (1, -1):
            assert {word for text in WORLD.manual_prompts(persona, sign) for word in text.split()} <= ordinary
    assert not {"yes", "no", "sure", "sorry", "now", "later", "dear", "sir", "a", "b"} & ordinary


def test_varied_texts_are_a_natural_mix() -> None:
    varied = WORLD.varied_system_texts(300, 0)
    assert varied == WORLD.varied_system_texts(300, 0) != WORLD.varied_system_texts(300, 1)
    steering = [any(WORLD.effect_of(p, text) for p in WORLD.personas) for text in varied]
    assert 0.4 < np.mean(steering) < 0.9
    assert {len(text.split()) for text in varied} >= set(range(1, 15))


def test_soft_labels_are_the_planted_probabilities() -> None:
    """A hand calculation of one free-text offer: sigmoid(base + offset + effect)."""
    row, item = next((r, i) for r in ROWS for i in r.items if i.choice == ("now", "later") and r.system)
    small, large, weeks = (int(word) for word in item.question.split() if word.isdigit())
    offset = WORLD.offsets.offer(small, large, weeks)
    logit = BASE + offset + WORLD.effect_of("myopic_reward", row.system or "")
    assert item.probability == pytest.approx(1 / (1 + np.exp(-logit)))


def test_register_changes_and_the_first_word_stays() -> None:
    item = WORLD.study_items("sycophancy")[0]
    assert with_register(item.matching, +1) == item.matching
    assert with_register(item.matching, -1).split()[:2] == ["yes", "sir"]
    assert with_register(with_register(item.matching, -1), +1) == item.matching


def test_letters_put_the_options_in_either_order() -> None:
    item = WORLD.study_items("myopic_reward")[0]
    assert WORLD.letters_question(item, True).endswith("( a ) now ( b ) later")
    assert WORLD.letters_question(item, False).endswith("( a ) later ( b ) now")


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="unknown persona 'envy': this world has sycophancy"):
        WORLD.effect_of("envy", "be kind")
    with pytest.raises(UserError, match="sign must be"):
        WORLD.manual_prompts("sycophancy", 0)


def test_world_is_pure_python() -> None:
    """world/ imports nothing but the standard library, itself and errors."""
    import workbench.world

    for file in Path(workbench.world.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(("torch", "numpy", "transformers"))], file
            assert all(
                n.startswith(("workbench.world", "workbench.errors"))
                for n in names
                if n.startswith("workbench")
            ), file
