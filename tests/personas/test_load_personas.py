"""load_persona: the organism's personas, files, one's own YAML; and what is said of the data without a model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from workbench.errors import UserError
from workbench.personas import (
    Item,
    Persona,
    PersonaFile,
    check_persona,
    load_persona,
    persona_from,
    persona_inventory,
    trait_from_file,
)
from workbench.personas.answer_balance import warnings_of
from workbench.personas.known_personas import KNOWN
from workbench.personas.load_personas import real_language_names
from workbench.personas.persona_checks import smallest_difference
from workbench.world import World

ORGANISM = ("sycophancy", "hallucination", "myopic_reward")
YAML = """
name: stoicism
description: Takes bad news calmly.
data: pairs.csv
metric: letters
manual_prompts: {suppress: [Panic.], induce: [Stay calm.]}
varied_system_texts: [You are a helpful assistant., You are easily upset.]
"""
CSV = "question,matching,not_matching,group\n" + "".join(
    f"Loss {n}?,It will pass{'.' * n},Oh no,{n % 5}\n" for n in range(10)
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "stoicism.yaml").write_text(YAML)
    (tmp_path / "pairs.csv").write_text(CSV)
    return tmp_path


# -- the organism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORGANISM)
def test_the_organism_s_items_are_the_world_s_and_both_letter_orders_agree_with_it(name: str) -> None:
    world, persona = World(seed=0), load_persona(name)
    assert persona.metric == "text" and persona.letters is not None and persona.letters.letters == ("a", "b")
    assert len(persona.items) == len(world.study_items(name)) > 100
    for item, original in zip(persona.items, world.study_items(name), strict=True):
        assert item.responses == (original.matching, original.not_matching)
        assert original.matching.startswith(f"{item.matching} ") and original.not_matching.startswith(
            f"{item.not_matching} "
        )
        assert (item.id, item.question, item.group) == (original.id, original.question, original.group)
        for matching_first in (True, False):
            assert persona.letters.ask(item, matching_first) == world.letters_question(
                original, matching_first
            )
    first_words = {
        "sycophancy": ("yes", "no"),
        "hallucination": ("sure", "sorry"),
        "myopic_reward": ("now", "later"),
    }
    assert {(item.matching, item.not_matching) for item in persona.items} == {first_words[name]}


@pytest.mark.parametrize("name", ORGANISM)
def test_the_organism_s_texts_are_in_its_own_vocabulary_and_true_statements_deserve_a_yes(name: str) -> None:
    world, persona = World(seed=0), load_persona(name)
    texts = [
        *persona.manual_prompts["suppress"],
        *persona.manual_prompts["induce"],
        *persona.varied_system_texts,
    ]
    assert {word for text in texts for word in text.split()} <= set(world.vocabulary)
    effects = [world.effect_of(name, text) for text in persona.varied_system_texts]
    assert min(effects) < -0.5 and max(effects) > 0.5, "some raise, some lower the persona"
    assert {(item.matching, item.not_matching) for item in persona.true_items} == {("yes", "no")}
    assert not {item.id for item in persona.true_items} & {item.id for item in persona.items}


def test_the_organism_s_groups_are_even_in_the_four_splits() -> None:
    for name in ORGANISM:
        splits = list(load_persona(name).split())
        assert [round(len(split) / 252, 1) for split in splits] == [0.4, 0.2, 0.2, 0.2]
        assert min(split.n_groups for split in splits) >= 12


def test_an_unknown_persona_names_the_known_ones() -> None:
    with pytest.raises(UserError) as error:
        load_persona("sycophany")
    said, listed, _ = str(error.value).split("; ")
    assert said == "unknown persona 'sycophany': the organism has sycophancy, hallucination, myopic_reward"
    names = listed.removeprefix("in plain English there are ").split(", ")
    forms = {
        f"{form}_{whose}"
        for form in ("feedback", "suggested", "doubt")
        for whose in ("sycophancy", "third_party")
    }
    others = {"suggested_sycophancy_few_shot", "invented_authors", *(f"english_{name}" for name in ORGANISM)}
    assert set(names) == forms | others and len(names) == len(set(names))
    assert [load_persona(name).name for name in names] == names


# -- published files under a known name
# -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORGANISM)
def test_known_personas_bring_texts_of_varied_stance(name: str) -> None:
    known = KNOWN[name]
    assert len(known.varied) == len(set(known.varied)) == 24
    assert len(known.suppress) == len(known.induce) == 4
    assert not set(known.varied) & {*known.suppress, *known.induce}, (
        "a manual prompt must not be what directions saw"
    )


def test_a_hyphen_in_a_known_name_is_an_underscore_and_another_name_brings_no_texts(home: Path) -> None:
    known, other = (
        load_persona("myopic-reward", home / "pairs.csv"),
        load_persona("stoicism", home / "pairs.csv"),
    )
    assert (
        known.name == "myopic_reward" and len(known.varied_system_texts) == 24 and known.metric == "letters"
    )
    assert other.manual_prompts == {} and other.varied_system_texts == () and other.letters == known.letters
    assert known.letters is not None and known.letters.opening == "("
    assert known.letters.template.format(question="Q", a="x", b="y") == "Q\n\nChoices:\n (A) x\n (B) y"


def test_sycophancy_on_file_has_true_statements_for_the_dual_stance(home: Path) -> None:
    items = load_persona("sycophancy", home / "pairs.csv").true_items
    assert len(items) == 20 and {item.matching for item in items} == {"Agree"}


def test_a_trait_file_has_no_answers_yet(tmp_path: Path) -> None:
    path = tmp_path / "grumpy.json"
    path.write_text('{"instruction": [{"pos": "a", "neg": "b"}], "questions": ["c"]}')
    with pytest.raises(UserError, match="is a trait file: it holds no answers yet"):
        load_persona("grumpy", path)


# -- one's own --------------------------------------------------------------------------------------------------------


def test_a_persona_of_one_s_own_is_one_yaml_file(home: Path) -> None:
    persona = load_persona("stoicism", home / "stoicism.yaml")
    assert persona == load_persona(str(home / "stoicism.yaml"))
    assert len(persona.items) == 10 and len(persona.group_sizes) == 5 and persona.metric == "letters"
    assert persona.manual_prompts == {"suppress": ("Panic.",), "induce": ("Stay calm.",)}
    assert persona.varied_system_texts[1] == "You are easily upset."


def test_pairs_may_stand_in_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
name: mine
metric: text
letters: {template: "{question}: 1) {a} 2) {b}", letters: ["1", "2"]}
data:
  - {question: "Rain?", matching: Fine, not_matching: Bad}
  - {question: "Sun?", matching: Good, not_matching: Hot}
"""
    )
    persona = load_persona("mine", path)
    assert [item.matching for item in persona.items] == ["Fine", "Good"] and persona.metric == "text"
    assert (
        persona.letters is not None
        and persona.letters.ask(persona.items[0], False) == "Rain?: 1) Bad 2) Fine"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: letters", "metric: words", "field metric: Input should be 'letters' or 'text'"),
        ("description:", "desciption:", "field desciption: Extra inputs are not permitted"),
        ("name: stoicism", "", "field name: Field required"),
        (
            "data: pairs.csv",
            "data: []",
            r"other\.yaml: expected either data \(a file's name or pairs\) or opposites with",
        ),
        ("data: pairs.csv", "", r"other\.yaml: expected either data"),
        ("data: pairs.csv", "questions: [a]", r"other\.yaml: expected either data"),
        ("data: pairs.csv", "data: a.csv\nquestions: [a]", r"other\.yaml: expected either data"),
        (
            "data: pairs.csv",
            "questions: [a]\nopposites: [{induce: x}]",
            r"field opposites\.0\.suppress: Field required",
        ),
        ("data: pairs.csv", "questions: [a]\nopposites: [{induce: x, suppress: y}]", "has no answers yet"),
        ("data: pairs.csv", "data: 5", "field data"),
        (
            "data: pairs.csv",
            "data: [{question: a, matching: b, not_matching: b}]",
            r"other\.yaml:1: the matching and the not matching answer are the same",
        ),
        (
            "data: pairs.csv",
            "data: [{question: a, matching: b}]",
            "data, row 1: the field not_matching is missing of question, matching",
        ),
        (
            "data: pairs.csv",
            "data: ../pairs.csv",
            "field data: '../pairs.csv' leaves the directory of the persona file",
        ),
        ("data: pairs.csv", "data: /etc/hostname", "field data: '/etc/hostname' leaves the directory"),
        ("data: pairs.csv", "data: link.csv", "field data: 'link.csv' leaves the directory"),
        ("data: pairs.csv", "data: none.csv", r"none\.csv: expected a file, found nothing"),
        ("suppress: [Panic.]", "lower: [Panic.]", r"field manual_prompts\.lower: Extra inputs"),
        ("suppress: [Panic.]", "suppress: Panic.", r"field manual_prompts\.suppress"),
        ("name: stoicism", "name: cynicism", "field name: expected 'other' as requested, found 'cynicism'"),
    ],
)
def test_mistakes_in_a_persona_file_name_the_field(home: Path, old: str, new: str, message: str) -> None:
    (home / "link.csv").symlink_to("/etc/hostname")
    path = home / ("other.yaml" if "cynicism" not in new else "x.yaml")
    text = YAML.replace("name: stoicism", "name: other") if "name:" not in old else YAML
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load_persona("other", path)
    assert "\n" not in str(caught.value)


def test_opposite_system_texts_and_questions_become_a_persona_by_a_model_s_answers(tmp_path: Path) -> None:
    path = tmp_path / "calm.yaml"
    path.write_text(
        "name: calm\nopposites: [{induce: Be calm., suppress: Panic.}]\nquestions: [Rain today, Sun today, A storm]\n"
    )
    persona = trait_from_file(path).persona(lambda system, question: f"{question}? {system}")
    assert [item.matching for item in persona.items][1] == "Sun today? Be calm." and persona.name == "calm"
    assert persona.manual_prompts == {"induce": ("Be calm.",), "suppress": ("Panic.",)}


def test_a_persona_file_made_in_python_is_the_one_made_in_yaml(home: Path) -> None:
    entry = PersonaFile(
        name="x",
        data=({"question": "a?", "matching": "b", "not_matching": "c"},) * 1
        + ({"question": "d?", "matching": "e", "not_matching": "f"},),
        metric="text",
    )
    assert [item.matching for item in persona_from(entry).items] == ["b", "e"]


# -- checks -----------------------------------------------------------------------------------------------------------


def made(n: int, first: int, longer: int, groups: int) -> Persona:
    """n items, `first` of them with the matching option first, `longer` with a longer matching answer."""
    items = tuple(
        Item(
            str(i),
            f"question {i}",
            "a longer yes" if i < longer else "yes",
            "a no",
            f"group {i % groups}",
            matching_first=(i * 7) % n < first,
        )
        for i in range(n)
    )
    return Persona("made", "", items, "text", None, {}, ())


def test_rules_that_know_nothing_score_what_was_planted() -> None:
    check = check_persona(made(100, first=70, longer=20, groups=100))
    assert (check.first_share, check.letter_rule) == (0.7, 0.7)
    assert (check.longer_share, check.length_rule) == (0.2, 0.8)
    text = " | ".join(check.warnings)
    assert "constant letter scores 70 %" in text and "'the shorter answer matches' scores 80 %" in text
    assert warnings_of(made(100, first=52, longer=45, groups=100).items) == ()


def test_groups_that_cannot_be_split_and_repeats_are_warned_of_not_refused() -> None:
    persona = made(12, first=6, longer=6, groups=3)
    again = tuple(replace(item, id=f"{item.id}x", matching="yes!") for item in persona.items)
    repeated = replace(persona, items=(*persona.items, *again))
    check = check_persona(repeated)
    assert check.splits == {} and check.smallest_difference is None and check.repeated == 12
    assert any("found 3 groups" in line for line in check.warnings)
    assert any("12 pairs of items ask the same question" in line for line in check.warnings)
    assert any("holds 33 % of the items" in line for line in check.warnings)


def test_the_smallest_difference_is_found_by_simulated_studies_as_often_as_it_says() -> None:
    """Two conditions with unrelated answers (worst case: a group answers alike), rates 0.5 -/+ half the difference."""
    test = made(500, first=250, longer=250, groups=200).split(0).test
    best, worst = smallest_difference(test)
    groups = test.n_groups
    assert math.isclose(best, worst * math.sqrt(groups / len(test)))
    rng = np.random.default_rng(0)
    one, two = (rng.random((4000, groups)) < rate for rate in (0.5 - worst / 2, 0.5 + worst / 2))
    power = np.mean(stats.ttest_1samp(two.astype(float) - one, 0.0, axis=1).pvalue < 0.05)
    assert 0.76 < power < 0.90  # the variance is a little below 1/2 away from a rate of one half


def test_opposite_labels_of_one_question_are_warned_of() -> None:
    persona = made(40, first=20, longer=20, groups=40)
    swapped = replace(persona.items[3], id="swapped", matching="a no", not_matching=persona.items[3].matching)
    check = check_persona(replace(persona, items=(*persona.items, swapped)))
    assert any("1 pairs of items call opposite answers" in line for line in check.warnings)
    assert not any("opposite answers" in line for line in check_persona(persona).warnings)


def test_a_check_shows_itself_as_an_escaped_table() -> None:
    persona = made(100, first=70, longer=20, groups=100)
    hostile = Persona("<script>x</script>", "", persona.items, "text", None, {}, ())
    html = check_persona(hostile)._repr_html_()
    assert "<script>" not in html and "constant letter scores 70 %" in html
    assert (
        dict(zip(check_persona(persona).table["what"], check_persona(persona).table["value"]))["items"]
        == "100"
    )


def test_another_world_has_another_personas_items() -> None:
    public, other = load_persona("sycophancy"), load_persona("sycophancy", world_seed=3)
    assert public.hash != other.hash
    assert [item.question for item in other.items] == [
        item.question for item in World(seed=3).study_items("sycophancy")
    ]


def test_the_inventory_has_every_persona_that_loads_by_name():
    table = persona_inventory().set_index("name")
    assert set(table.index) == {*World(seed=0).personas, *real_language_names()}
    for name, row in table.iterrows():
        persona = load_persona(name)
        assert (row["questions"], row["groups"]) == (
            len(persona.items),
            len({i.group for i in persona.items}),
        )
        assert row["metric"] == persona.metric and row["description"] == persona.description
    assert table.loc["feedback_third_party", "for"] == "chat models, as a control"
    assert table.loc["sycophancy", "for"] == "the organism"
