"""What a condition does to single questions, by hand on three of them."""

from __future__ import annotations

import pandas as pd
import pytest

from workbench.comparison import question_changes, questions_of_run
from workbench.errors import UserError

ROWS = [
    # item, group, order, no prompt, resga
    ("a", "g1", True, 1.0, -1.0),
    ("a", "g1", False, 3.0, 1.0),
    ("b", "g1", True, -1.0, -5.0),
    ("c", "g2", True, 1.0, 2.0),
]
TABLE = pd.DataFrame(
    [
        {"condition": name, "item": item, "group": group, "matching_first": first, "log_odds": value}
        for item, group, first, *values in ROWS
        for name, value in zip(("no prompt", "resga"), values, strict=True)
    ]
)


def test_changes_are_means_over_orders_with_the_largest_first():
    found = question_changes(TABLE, "resga", "no prompt", wanted=-1).set_index("item")
    assert list(found.index) == ["b", "a", "c"]
    assert found["change"].to_dict() == {"b": -4.0, "a": -2.0, "c": 1.0}
    assert found["flipped"].to_dict() == {"b": False, "a": True, "c": False}, (
        "a goes from +2 to 0, which is no longer the matching answer"
    )
    assert found["worse"].to_dict() == {"b": False, "a": False, "c": True}
    assert question_changes(TABLE, "resga", "no prompt", wanted=1).set_index("item")["worse"].to_dict() == {
        "b": True,
        "a": True,
        "c": False,
    }


def test_a_question_that_was_not_answered_in_both_is_left_out():
    holes = TABLE[~((TABLE["condition"] == "no prompt") & (TABLE["item"] == "b"))]
    assert list(question_changes(holes, "resga", "no prompt", -1)["item"]) == ["a", "c"]
    assert question_changes(TABLE, "nobody", "no prompt", -1).empty


def test_without_a_comparison_it_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError):
        questions_of_run(tmp_path)
