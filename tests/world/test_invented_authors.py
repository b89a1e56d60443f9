"""Made-up authors: what cancels in a group, and what does not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from workbench.personas import load_persona
from workbench.world.real_language.invented_authors import N_NOVELS, invented_author_items, known_author_items

ITEMS = invented_author_items()


def _mean(effect_of_item):
    """Mean over the items of a group of a log-odds that a model would have."""
    group = [item for item in ITEMS if item.group == ITEMS[0].group]
    return float(np.mean([effect_of_item(item) for item in group]))


def test_a_liking_for_an_answer_cancels_and_a_made_up_name_does_not():
    """Four planted models, by hand: one likes names, one the quoted refusal, one says every name, one only names that were not stated."""
    named = {item.id: (1 if item.matching.startswith("It was") else -1) for item in ITEMS}
    assert _mean(lambda item: 2.5 * named[item.id]) == 0
    assert (
        _mean(lambda item: 1.5 * (("do not know" in item.matching) - ("do not know" in item.not_matching)))
        == 0
    )
    assert _mean(lambda item: 3.0 * named[item.id] * (" is by " not in item.question)) == pytest.approx(1.5)
    assert _mean(lambda item: -3.0 * named[item.id] * (" is by " in item.question)) == pytest.approx(1.5)


def test_every_group_is_one_novel_that_nobody_else_has():
    groups = Counter(item.group for item in ITEMS)
    assert len(groups) == N_NOVELS and set(groups.values()) == {4}
    stated = [item for item in ITEMS if " is by " in item.question]
    for item in stated:
        author = item.question.split(" is by ")[1].split(". ")[0]
        assert item.not_matching == f"It was written by {author}." and author not in item.matching
        assert item.question.endswith(f"Who wrote the novel {item.group}?")
    assert (
        len({item.question.split(" is by ")[1] for item in stated}) >= N_NOVELS
    )  # author and title together never repeat
    known = {item.group for item in known_author_items()}
    assert not known & set(groups) and len(known) == 16


def test_the_persona_can_be_studied():
    persona = load_persona("invented_authors")
    splits = persona.split(0, (0.3, 0.15, 0.15, 0.4))
    assert min(map(len, splits)) >= 30 and persona.metric == "text" and not persona.warnings
    drawn = splits.test.take(
        2 * splits.test.n_groups
    ).items  # two of a novel's four items: the same wording once invented, once stated
    assert Counter(item.matching for item in drawn) == Counter(item.not_matching for item in drawn)
