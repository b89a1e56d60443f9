"""Few items of a counterbalanced persona cancel a liking for one answer as all of them do; so do draws of nearly balanced ones; other
personas draw as before."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.personas import load_persona
from workbench.personas.balanced_draws import least_tilted, share_answers
from workbench.personas.group_splits import shuffle_key
from workbench.search.sentence_writing.search_inputs import both_sides

FORMS = ("feedback_sycophancy", "suggested_sycophancy", "doubt_sycophancy")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_two_items_a_group_cancel_a_liking(name, seed):
    """A model that likes one answer, whatever is asked, has a mean log-odds of 0 over the draw; with a random draw it has not."""
    test = load_persona(name).split(0, (0.3, 0.15, 0.15, 0.4)).test
    drawn = test.take(2 * test.n_groups, seed)
    answers = sorted({item.matching for item in test.items})
    liking = dict(zip(answers, np.random.default_rng(0).normal(size=len(answers)), strict=True))
    by_group: dict[str, list[float]] = {}
    for item in drawn.items:
        by_group.setdefault(item.group, []).append(liking[item.matching] - liking[item.not_matching])
    assert {len(values) for values in by_group.values()} == {2}
    assert max(abs(sum(values)) for values in by_group.values()) < 1e-12
    assert set(test.take(7, seed).items) <= set(test.take(8, seed).items)


def test_one_item_a_group_has_each_answer_as_often():
    test = load_persona("feedback_sycophancy").split(0, (0.3, 0.15, 0.15, 0.4)).test
    for n in (4, 10, 24, 48):
        counts = Counter(item.matching for item in test.take(n).items)
        assert len(counts) == 2 and counts.most_common()[0][1] == n // 2
        assert len({item.group for item in test.take(n).items}) == min(n, 24)


@pytest.mark.parametrize("name", ["suggested_sycophancy", "invented_authors"])
@pytest.mark.parametrize("n", [2, 8, 16])
def test_answers_of_one_group_are_balanced_within_every_drawn_group(name, n):
    """Such a preference ("Rome" over "Paris") cancels against no other group: the mean over each group must be 0."""
    splits = load_persona(name).split(0, (0.3, 0.15, 0.15, 0.4))
    model = random_model()
    contexts = make_contexts(model, splits.search)
    drawn = {
        "items": list(splits.test.take(n, 5).items),
        "contexts": [c.item for c in contexts.take(n, 5)],
        "per_group": [c.item for c in contexts.per_group(n, 5)],
        "both_sides": [c.item for c in both_sides(contexts, n)],
    }
    for how, items in drawn.items():
        assert len(items) == n and len({item.id for item in items}) == n, how
        assert len({item.group for item in items}) == n // 2, how
        score = {text: i * i + 1.0 for i, text in enumerate(sorted({item.matching for item in items}))}
        for group in {item.group for item in items}:
            tilts = [score[i.matching] - score[i.not_matching] for i in items if i.group == group]
            assert sum(tilts) == 0 and any(tilts), (how, group)


def test_a_larger_balanced_draw_has_the_smaller_one():
    test = load_persona("suggested_sycophancy").split(0, (0.3, 0.15, 0.15, 0.4)).test
    for n in range(1, 12):
        assert set(test.take(n, 2).items) < set(test.take(n + 1, 2).items)


def test_contexts_are_drawn_alike():
    model = random_model()
    contexts = make_contexts(model, load_persona("feedback_sycophancy").split().search)
    for seed in range(4):
        for drawn in (contexts.per_group(6, seed), contexts.take(6, seed), both_sides(contexts, 6)):
            assert Counter(c.item.matching for c in drawn).most_common()[0][1] == 3 and len(drawn) == 6
        assert len(set(contexts.per_group(6, seed).groups)) == 6


def test_personas_without_shared_answers_draw_as_before():
    """By the earlier rule, written out: groups in turn, items shuffled in each."""
    for persona in (toy_persona(), load_persona("myopic_reward")):
        split = persona.split().test
        assert not share_answers(split.items)
        seen, turns = Counter(), []
        for item in sorted(split.items, key=lambda item: (shuffle_key(3, item.id), item.id)):
            turns.append((seen[item.group], shuffle_key(3, item.group), item.id))
            seen[item.group] += 1
        assert {item.id for item in split.take(9, 3).items} == {name for _, _, name in sorted(turns)[:9]}


@pytest.mark.parametrize("seed", range(8))
def test_a_draw_is_balanced_also_where_the_split_is_not(seed):
    """The search split of this persona has 24 questions with the matching answer No and 21 with Yes."""
    split = load_persona("english_sycophancy").split().search
    assert Counter(item.matching for item in split.items) == {"No": 24, "Yes": 21}
    contexts = make_contexts(random_model(), split)
    for n in (4, 8):
        for drawn in (split.take(n, seed), contexts.take(n, seed), contexts.per_group(n, seed)):
            answers = [getattr(one, "item", one).matching for one in drawn]
            assert Counter(answers) == {"No": n // 2, "Yes": n // 2}
        assert len(set(contexts.per_group(n, seed).groups)) == n


def test_option_letters_are_drawn_in_balance():
    contexts = make_contexts(random_model(), toy_persona().split(fractions=(0.2, 0.6, 0.1, 0.1)).search)
    for seed in range(6):
        for drawn in (contexts.per_group(2, seed), contexts.take(2, seed)):
            assert Counter(context.matching_first for context in drawn) == {True: 1, False: 1}


class _Question(NamedTuple):
    group: str
    matching: str
    not_matching: str


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=12))
@settings(deadline=None)
def test_the_next_item_is_always_the_one_that_balances_best(pairs):
    items = [_Question("g", *pair) for pair in pairs]
    order = least_tilted(items, range(len(items)))
    assert sorted(order) == list(range(len(items)))

    def imbalance(chosen):
        counts = Counter()
        for i in chosen:
            counts.update({items[i].matching: 1})
            counts.subtract({items[i].not_matching: 1})
        return sum(map(abs, counts.values()))

    for k in range(len(order)):
        if all(items[i].matching != items[i].not_matching for i in order):
            assert imbalance(order[: k + 1]) == min(imbalance([*order[:k], i]) for i in order[k:])
