"""Items, letter forms, splits by group: laws that hold for any data."""

from __future__ import annotations

import itertools
import random
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.personas import Item, LetterForm, Persona, duplicates
from workbench.personas.group_splits import assign_groups
from workbench.personas.persona import content_hash
from workbench.personas.question_groups import by_claim, by_content, by_question, join_same_questions

LETTERS = LetterForm("{question}\n (A) {a}\n (B) {b}", "(", ("A", "B"))


def items(sizes: list[int]) -> tuple[Item, ...]:
    return tuple(
        Item(f"{group}-{n}", f"question {group} {n}", "yes", "no", f"group {group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    )


def persona(sizes: list[int]) -> Persona:
    return Persona("test", "", items(sizes), "text", None, {}, ())


group_sizes = st.lists(st.integers(1, 30), min_size=4, max_size=60)


@settings(deadline=None)
@given(sizes=group_sizes, seed=st.integers(0, 10_000))
def test_splits_are_disjoint_complete_whole_by_group_and_never_empty(sizes: list[int], seed: int) -> None:
    whole = persona(sizes)
    splits = list(whole.split(seed))
    assert sorted(item.id for split in splits for item in split) == sorted(item.id for item in whole.items)
    groups = [set(split.groups) for split in splits]
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))
    assert [split.name for split in splits] == ["train", "search", "selection", "test"]


@settings(deadline=None)
@given(sizes=group_sizes, seed=st.integers(0, 10_000), shuffle=st.randoms(use_true_random=False))
def test_a_split_is_decided_by_seed_and_groups_not_by_the_order_of_rows(
    sizes: list[int], seed: int, shuffle: random.Random
) -> None:
    whole = persona(sizes)
    mixed = list(whole.items)
    shuffle.shuffle(mixed)
    other = replace(whole, items=tuple(mixed))
    for one, two in zip(whole.split(seed), other.split(seed), strict=True):
        assert {item.id for item in one} == {item.id for item in two}


@given(
    n_groups=st.integers(8, 80),
    size=st.integers(1, 5),
    weights=st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
def test_shares_of_equal_groups_are_off_by_less_than_one_group_each(
    n_groups: int, size: int, weights: list[int]
) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    assigned = assign_groups({f"g{i}": size for i in range(n_groups)}, fractions, seed=3)
    for i, fraction in enumerate(fractions):
        count = sum(1 for split in assigned.values() if split == i)
        assert count == 1 or abs(count - fraction * n_groups) <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_is_trained_on_and_dominates_no_other_split(seed: int) -> None:
    """One group of 60 and one of 30 among 60 single ones: neither may be most of a split that intervals come from."""
    splits = persona([60, 30] + [1] * 60).split(seed)
    assert {"group 0", "group 1"} <= set(splits.train.groups)
    assert min(len(splits.search), len(splits.selection), len(splits.test)) >= 15


def test_the_seed_changes_the_split_and_the_default_split_is_fixed_for_good() -> None:
    whole = persona([1] * 40)
    tests = [frozenset(item.id for item in whole.split(seed).test) for seed in range(10)]
    assert len(set(tests)) == 10
    assert sorted(whole.split().test.groups)[:3] == ["group 12", "group 14", "group 2"], (
        "a stored run relies on this"
    )


def test_two_groups_of_one_size_are_as_likely_to_be_tested() -> None:
    """Ties and the order of names prefer no group: each of 10 is in the test split in about 1 of 5 seeds."""
    whole = persona([2] * 10)
    counts = dict.fromkeys(whole.group_sizes, 0)
    for seed in range(400):
        for group in set(whole.split(seed).test.groups):
            counts[group] += 1
    assert sum(counts.values()) == 800 and all(50 <= count <= 110 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("sizes", "fractions", "message"),
    [
        ([9], (0.4, 0.2, 0.2, 0.2), "the group 'group 0' fills all 9 rows"),
        ([3, 3, 3], (0.4, 0.2, 0.2, 0.2), "found 3 groups in 9 rows; a split by group needs at least 4"),
        ([3] * 8, (0.5, 0.5, 0.2, 0.2), "must be positive and sum to 1"),
        ([3] * 8, (1.0, 0.2, -0.2, 0.0), "must be positive and sum to 1"),
        ([3] * 8, (float("nan"), 0.2, 0.2, 0.2), "must be positive and sum to 1"),
        ([3] * 8, (0.5, 0.5), "expected 4 split fractions"),
    ],
)
def test_data_that_cannot_be_split_is_refused_in_words(
    sizes: list[int], fractions: tuple, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        persona(sizes).split(fractions=fractions)


def test_take_spreads_over_groups_grows_by_one_and_keeps_the_order_of_the_file() -> None:
    split = persona([5] * 20).split(0, (0.7, 0.1, 0.1, 0.1)).train
    assert split.take(split.n_groups, seed=4).n_groups == split.n_groups
    taken = [{item.id for item in split.take(n, seed=4)} for n in range(1, 9)]
    assert all(small < large for small, large in itertools.pairwise(taken))
    ids = [item.id for item in split]
    assert [i.id for i in split.take(9, 1)] == [i for i in ids if i in {item.id for item in split.take(9, 1)}]
    assert {i.id for i in split.take(5, 1)} != {i.id for i in split.take(5, 2)}
    assert split.take(10_000).items == split.items
    with pytest.raises(UserError, match="at least 1 item"):
        split.take(0)


def test_a_hash_knows_content_not_place() -> None:
    whole = persona([2] * 8)
    moved = replace(whole, items=tuple(replace(item, source="elsewhere.json:1") for item in whole.items))
    changed = replace(whole, items=(replace(whole.items[0], matching="yes!"), *whole.items[1:]))
    assert whole.hash == moved.hash != changed.hash
    assert (
        len({split.hash for split in whole.split()}) == 4
        and whole.split(1).test.hash == whole.split(1).test.hash
    )


# -- items and letter forms
# -------------------------------------------------------------------------------------------


def test_a_letter_form_puts_text_in_literally_whatever_braces_it_holds() -> None:
    item = Item("1", "what is {a} in {question}?", "{b}", "{0}", "g")
    assert LETTERS.ask(item, True) == "what is {a} in {question}?\n (A) {b}\n (B) {0}"
    assert LETTERS.ask(item, False) == "what is {a} in {question}?\n (A) {0}\n (B) {b}"
    assert (LETTERS.answers(True), LETTERS.answers(False)) == (("A", "B"), ("B", "A"))


@pytest.mark.parametrize(
    ("template", "letters"),
    [
        ("{question} {a}", ("A", "B")),
        ("{question} {a} {b} {b}", ("A", "B")),
        ("{question} {a} {b}", ("A", "A")),
    ],
)
def test_letter_forms_that_cannot_work_are_refused(template: str, letters: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="letter"):
        LetterForm(template, "(", letters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matching": "no "}, "a.csv:3: the matching and the not matching answer are the same: 'no '"),
        ({"question": " "}, "a.csv:3, field question: expected text"),
        ({"group": ""}, "a.csv:3, field group: expected text"),
    ],
)
def test_items_without_content_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(Item("1", "q", "yes", "no", "g", source="a.csv:3"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "words"}, "metric must be 'letters' or 'text', found 'words'"),
        ({"metric": "letters"}, "a letter form is needed"),
        ({"manual_prompts": {"raise": ("x",)}}, r"found \['raise'\]"),
        ({"items": items([1])}, "expected at least 2 items, found 1"),
        ({"items": items([1]) * 2}, "found '0-0' more than once"),
    ],
)
def test_personas_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(persona([1] * 4), **changes)


# -- groups -----------------------------------------------------------------------------------------------------------


def test_a_claim_is_what_follows_the_biography() -> None:
    bio = "I am Ada, and I like tea. I agree, as you may guess."
    stances = ("Agree", "Disagree")
    assert by_claim(f"{bio} Do you agree or disagree that tea is healthy?", stances).startswith(
        "Do you agree"
    )
    assert by_claim(f"{bio} Do you agree with this? Tea is healthy.", stances) == "Tea is healthy."
    assert by_claim(f"{bio} Which is closer to your view?", ("Tea", "Coffee")) == "Coffee / Tea"
    assert by_claim(f"{bio} Which is closer to your view?", ("Coffee", "Tea")) == "Coffee / Tea"


def test_content_leaves_out_amounts_and_times_but_not_the_thing() -> None:
    options = ("a", "b")
    one = by_content("Would you rather have 1 chocolate bar now or 3 chocolate bars in a week?", options)
    two = by_content(
        "You can have one chocolate bar today, or ten chocolate bars in two years. Which do you want?",
        options,
    )
    assert one == two == "bar chocolate"
    assert by_content("$5 now or $9 later?", options) == by_content(
        "50 dollars today, or 90 dollars in a month?", options
    )
    assert by_content("Now or later?", options) == "now or later", "nothing is left: the question itself"


def test_questions_are_the_same_without_case_spacing_and_numbers() -> None:
    options = ("a", "b")
    assert by_question("How  many of 12 eggs?", options) == by_question("how many of 13 EGGS", options)
    assert by_question("???", options) == "???"


def test_one_question_in_two_unicode_forms_is_one_question() -> None:
    """NFC, NFD, soft hyphens, zero-width and full-width characters; but not two words that differ by a vowel sign."""
    options = ("Oui", "Non")
    written = "Le caf\u00e9 est-il bon \u00e0 Gen\u00e8ve ?"
    for other in (
        "Le cafe\u0301 est-il bon a\u0300 Gene\u0300ve ?",
        "Le ca\u00adf\u00e9 est-il bon \u00e0 Ge\u200bn\u00e8ve\ufeff?",
        "LE CAF\u00c9 EST-IL BON \u00c0 \uff27EN\u00c8VE",
    ):
        assert by_question(other, options) == by_question(written, options)
        assert by_content(other, options) == by_content(written, options)
        assert duplicates([Item("1", written, *options, "g")], [Item("2", other, *options, "h")])[
            0
        ].same_answers
    assert by_claim("Bio? Th\u00e9 !", options) == by_claim("Bio? The\u0301 !", options)
    assert by_question("\u0915\u093f?", options) != by_question("\u0915\u0940?", options), (
        "Hindi ki (that) and ki (of)"
    )


def test_groups_and_hash_do_not_depend_on_row_order_or_unicode_form() -> None:
    rows = [
        ("Caf\u00e9 ou th\u00e9 ?", "a"),
        ("Pain ?", "b"),
        ("Cafe\u0301 ou the\u0301 ?", "c"),
        ("Lait ?", "d"),
    ]
    made = [Item(str(n), question, "Oui", "Non", group) for n, (question, group) in enumerate(rows)]
    forward, backward = join_same_questions(made), join_same_questions(made[::-1])
    assert [item.group for item in forward] == ["a", "b", "a", "d"] == [item.group for item in backward][::-1]
    decomposed = [replace(i, question=unicodedata.normalize("NFD", i.question)) for i in forward]
    assert content_hash(forward) == content_hash(backward) == content_hash(decomposed)
    assert content_hash(forward) != content_hash(forward[:3])


def test_groups_with_a_question_in_common_are_joined_in_chains() -> None:
    texts = [("one?", "a"), ("two?", "a"), ("Two", "b"), ("three?", "b"), ("three", "c"), ("four", "d")]
    made = [Item(str(n), question, "y", "n", group) for n, (question, group) in enumerate(texts)]
    assert [item.group for item in join_same_questions(made)] == ["a", "a", "a", "a", "a", "d"]


def test_duplicates_are_found_by_content_whatever_the_order_of_options() -> None:
    one = [Item("1", "Tea or coffee?", "Tea.", "Coffee", "g"), Item("2", "Cats?", "yes", "no", "g")]
    two = [Item("3", "tea or COFFEE", "coffee", "tea", "h"), Item("4", "Cats?", "of course", "never", "h")]
    found = duplicates(one, two)
    assert [(pair.first.id, pair.second.id, pair.same_answers) for pair in found] == [("1", "3", False)]
    assert duplicates(one, [replace(one[1], id="5")])[0].same_answers
    assert duplicates(one, one) == ()
