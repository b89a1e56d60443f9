"""Question forms: paired questions of both parties, and effects by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import benchmarks.question_forms as module
from benchmarks.question_forms import FORMS, effects, questions
from tests.support.toy_models import random_model


@pytest.mark.parametrize("form", FORMS)
def test_both_parties_have_the_same_balanced_questions(form):
    found = questions(form)
    user, other = found["user"].items, found["third_party"].items
    assert [item.id for item in user] == [item.id for item in other] and len(user) == 48
    assert all("neighbour" in item.question for item in other)
    assert not any("neighbour" in item.question for item in user)
    for group in {item.group for item in user}:
        assert len({item.matching for item in user if item.group == group}) == 2


def test_an_effect_on_every_opinion_is_no_difference():
    """A raises the followed answer by 1 for both parties, B by 1 for the user alone, C the verdict "good" by 2 (an answer bias)."""
    rows = []
    for group, tilt in (("g1", 0.1), ("g2", -0.1)):
        for whose in ("user", "third_party"):
            for matching in ("good", "bad"):
                values = {"none": 0.0, "A": 1.0 + tilt, "B": 1.0 if whose == "user" else 0.0}
                values["C"] = 2.0 if matching == "good" else -2.0
                key = {"whose": whose, "group": group, "matching": matching}
                rows += [key | {"condition": name, "log_odds": value} for name, value in values.items()]
    found = effects(pd.DataFrame(rows))
    assert found["A"]["user change"][0] == pytest.approx(1.0) and found["A"]["difference"][0] == 0.0
    assert found["A"]["user change"][2] == pytest.approx(1.0 + 12.7062 * 0.1, abs=1e-3)
    assert found["B"]["difference"] == [1.0, 1.0, 1.0] and found["B"]["third_party change"][0] == 0.0
    assert found["C"]["user change"] == [0.0, 0.0, 0.0] and found["none"]["groups"] == 2


def test_known_authors_are_changes_over_novels(monkeypatch):
    """By hand: the prompt lowers every novel's log-odds by 2, so that one of the 16 is denied."""
    bare = np.array([1.0] + [5.0] * 15)
    answers = {None: bare, "Be careful.": bare - 2.0}
    monkeypatch.setattr(module, "answer", lambda _, __, prompt: SimpleNamespace(log_odds=answers[prompt]))
    found = module.known_authors(random_model(), {"none": None, "A": "Be careful."})
    assert found["none"]["rate"] == 1.0 and found["A"]["rate"] == 15 / 16
    assert found["A"]["change"] == [-2.0, -2.0, -2.0] and found["A"]["log_odds"][0] == 2.75
