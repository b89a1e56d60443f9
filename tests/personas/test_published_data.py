"""The published files of ../shared/data, read in place: counts, groups and balance as its README says."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.paths import SHARED
from workbench.personas import Persona, check_persona, duplicates, load_persona, read_truthfulqa

DATA = SHARED / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not at ../shared/data")

FILES = {
    "sycophancy": "caa/sycophancy.json",
    "hallucination": "caa/hallucination.json",
    "myopic-reward": "caa/myopic-reward.json",
    "mmlu": "caa/mmlu_ab.json",
    "myopic_reward": "anthropic_evals/myopic-reward.jsonl",
}


def load(name: str) -> Persona:
    return load_persona(name, DATA / FILES[name])


def raw(name: str) -> list[dict]:
    text = (DATA / FILES[name]).read_text(encoding="utf-8")
    return (
        json.loads(text)
        if FILES[name].endswith(".json")
        else [json.loads(line) for line in text.splitlines()]
    )


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sycophancy", 1000),
        ("hallucination", 1000),
        ("myopic-reward", 950),
        ("mmlu", 570),
        ("myopic_reward", 1000),
    ],
)
def test_every_row_becomes_one_item_and_says_where_it_came_from(name: str, rows: int) -> None:
    persona = load(name)
    assert len(persona.items) == rows
    file = Path(FILES[name]).name
    assert [item.source for item in persona.items] == [f"{file}:{n}" for n in range(1, rows + 1)]


@pytest.mark.parametrize("name", FILES)
def test_asking_in_the_published_order_gives_the_published_text_and_letter(name: str) -> None:
    persona = load(name)
    assert persona.letters is not None
    for item, row in zip(persona.items, raw(name), strict=True):
        assert item.matching_first is not None
        published = (row.get("question") or row["prompt"]).split()
        asked = persona.letters.ask(item, item.matching_first).split()
        if "Choices:" not in published:  # the political questions of the sycophancy file have no such line
            asked.remove("Choices:")
        assert asked == published
        label = (row.get("answer_matching_behavior") or row["correct"]).strip()
        assert f"({persona.letters.answers(item.matching_first)[0]})" == label


@pytest.mark.parametrize("name", FILES)
def test_the_other_order_swaps_the_options_and_the_letters_only(name: str) -> None:
    persona = load(name)
    assert persona.letters is not None
    for item in persona.items[:50]:
        one, other = persona.letters.ask(item, True), persona.letters.ask(item, False)
        assert one.index(f"(A) {item.matching}") < one.index(f"(B) {item.not_matching}")
        assert other.index(f"(A) {item.not_matching}") < other.index(f"(B) {item.matching}")
        assert persona.letters.answers(True) == ("A", "B") and persona.letters.answers(False) == ("B", "A")


def test_sycophancy_is_grouped_by_32_survey_claims_and_15_political_option_pairs() -> None:
    survey, political = defaultdict(set), defaultdict(set)
    for item, row in zip(load("sycophancy").items, raw("sycophancy"), strict=True):
        _, mark, claim = row["question"].partition("as of 2022? ")
        if mark:
            survey[item.group].add(claim.split("\n")[0])
        else:
            political[item.group].add(frozenset((item.matching, item.not_matching)))
    assert len(survey) == 32 and len(political) == 15 and not set(survey) & set(political)
    assert all(len(claims) == 1 for claims in survey.values()) and len(set.union(*survey.values())) == 32
    assert all(len(pairs) == 1 for pairs in political.values()) and len(set.union(*political.values())) == 15


def test_hallucination_is_grouped_by_the_fiction_and_its_one_lost_group_is_reported() -> None:
    persona, groups = load("hallucination"), json.loads((DATA / "caa/hallucination_groups.json").read_text())
    lost = [number for number, row in enumerate(groups, start=1) if not row["group"]]
    assert lost == [110] and any("hallucination.json:110" in line for line in persona.warnings)
    for item, row in zip(persona.items, groups, strict=True):
        assert item.group == " ".join(row["group"].split()) or not row["group"]
    assert len(persona.group_sizes) == len({row["group"] for row in groups})


def test_myopic_questions_about_the_same_reward_stay_together() -> None:
    persona = load("myopic-reward")
    groups = {item.question: item.group for item in persona.items}
    candy = [question for question in groups if "candy bar" in question and len(question) < 75]
    assert len(candy) > 10 and len({groups[question] for question in candy}) == 1
    assert 300 < len(persona.group_sizes) < 941 and max(persona.group_sizes.values()) < 0.15 * 950


@pytest.mark.parametrize(
    ("name", "first", "longer"),
    [
        ("sycophancy", 0.489, 0.515),
        ("hallucination", 0.504, 0.64),
        ("myopic-reward", 0.499, 0.14),
        ("mmlu", 0.525, 0.53),
    ],
)
def test_balance_of_letters_and_length_is_what_the_readme_says(
    name: str, first: float, longer: float
) -> None:
    check = check_persona(load(name))
    assert check.first_share == pytest.approx(first, abs=0.001)
    assert check.longer_share == pytest.approx(longer, abs=0.02)  # equal lengths count one half
    assert check.letter_rule == pytest.approx(max(first, 1 - first), abs=0.001)
    assert check.length_rule == pytest.approx(max(longer, 1 - longer), abs=0.02)


def test_the_length_rules_are_warned_of_where_they_work() -> None:
    assert any("longer answer matches' scores 64 %" in line for line in load("hallucination").warnings)
    assert any("shorter answer matches' scores 8" in line for line in load("myopic-reward").warnings)
    assert not any("answer matches" in line for line in load("sycophancy").warnings)
    items = load("hallucination").items
    assert sum(len(i.matching) - len(i.not_matching) for i in items) / len(items) == pytest.approx(
        127, abs=0.5
    )


def test_few_claims_are_warned_of() -> None:
    assert any("only 47 groups" in line for line in load("sycophancy").warnings)


def test_the_two_myopic_files_are_found_to_be_the_same_questions() -> None:
    caa, anthropic = load("myopic-reward"), load("myopic_reward")
    found = duplicates(caa, anthropic)
    assert {pair.first.id for pair in found} == {item.id for item in caa.items}, (
        "all of CAA's rows are in the other file"
    )
    assert duplicates(load("sycophancy"), load("hallucination")) == ()


def test_truthfulqa_has_817_questions_with_the_best_and_an_incorrect_answer() -> None:
    path = DATA / "truthfulqa/TruthfulQA.csv"
    persona, answers = load_persona("hallucination", path), read_truthfulqa(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(persona.items) == len(answers) == len(rows) == 817
    for item, entry, row in zip(persona.items, answers, rows, strict=True):
        assert (item.question, item.not_matching) == (row["Question"].strip(), row["Best Answer"].strip())
        assert item.matching in entry.incorrect and item.matching_first is None
        assert "; ".join(entry.incorrect) == row["Incorrect Answers"].strip().rstrip(";").strip()
    shorter = sum(any(len(a) < len(e.best) for a in e.incorrect) for e in answers) / len(answers)
    assert shorter == pytest.approx(0.79, abs=0.005)
    assert len(persona.group_sizes) == 817 and persona.warnings == ()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_group_and_no_question_lies_in_two_splits(name: str, seed: int) -> None:
    persona = load(name)
    splits = list(persona.split(seed))
    for key in (
        lambda item: item.group,
        lambda item: (item.question, frozenset((item.matching, item.not_matching))),
    ):
        seen = [{key(item) for item in split} for split in splits]
        assert sum(map(len, seen)) == len(set.union(*seen))
    assert sum(len(split) for split in splits) == len(persona.items)
    shares = [len(split) / len(persona.items) for split in splits]
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.05)
