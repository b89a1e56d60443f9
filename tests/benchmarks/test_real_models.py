"""The table of real studies: effects over complete groups, by hand; a planted answer bias is no effect."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.real_models import by_condition, over_seeds, true_statements


def _table() -> pd.DataFrame:
    """Three groups, the last with one answer only. Base: 0. A: +1 on every question. B: +2 where "good" matches, -2 where "bad" does.
    Neutral: +0.5 on every question."""
    rows = []
    for group, answers in (("g1", ("good", "good", "bad")), ("g2", ("bad", "good")), ("g3", ("good",))):
        for number, answer in enumerate(answers):
            shift = 2.0 if answer == "good" else -2.0
            tilt = {"g1": 0.1, "g2": -0.1, "g3": 50.0}[group]
            for condition, value in (
                ("no prompt", 0.0),
                ("A", 1.0 + tilt),
                ("B", shift),
                ("neutral text", 0.5),
            ):
                rows.append(
                    {
                        "condition": condition,
                        "group": group,
                        "item": f"{group}{number}",
                        "matching": answer,
                        "log_odds": value,
                    }
                )
    return pd.DataFrame(rows)


def test_effects_are_over_groups_in_which_both_answers_match():
    found = by_condition(_table())
    assert {one["groups"] for one in found.values()} == {2}
    assert found["A"]["effect"][0] == pytest.approx(1.0) and found["A"]["beyond_neutral"][0] == pytest.approx(
        0.5
    )
    half = 12.7062 * 0.1  # t(1, 97.5 %) x standard error of (1.1, 0.9)
    assert found["A"]["effect"][1:] == pytest.approx([1.0 - half, 1.0 + half], abs=1e-3)
    assert found["A"]["answer_bias"] == pytest.approx(0.0)


def test_an_answer_bias_is_no_effect():
    """The plain mean of B over all questions would be +0.67: four of six have "good" as the matching answer."""
    found = by_condition(_table())["B"]
    assert found["effect"] == pytest.approx([0.0, 0.0, 0.0]) and abs(found["answer_bias"]) == pytest.approx(
        2.0
    )
    assert _table().query("condition == 'B'")["log_odds"].mean() == pytest.approx(2 / 3)


def test_seeds_are_put_together_over_seeds_and_groups():
    """Three seeds whose effects differ by seed alone: every draw of groups has the same mean, so the interval is that of drawing seeds."""
    entry = lambda seed: {"study": {"persona": "p", "sign": "suppress", "seed": seed}}  # noqa: E731

    def effects(value):
        return pd.DataFrame({f"g{n}": [0.0, value] for n in range(9)}, index=["no prompt", "resga"])

    (row,) = over_seeds([(entry(seed), effects(value)) for seed, value in enumerate((-0.3, 0.0, 0.6))])
    assert row["by_seed"] == {"0": -0.3, "1": 0.0, "2": 0.6} and row["condition"] == "resga"
    assert (
        row["effect"][0] == pytest.approx(0.1)
        and row["effect"][1] == pytest.approx(-0.3)
        and row["effect"][2] == pytest.approx(0.6)
    )
    one_seed = effects(0.0)
    one_seed.loc["resga"] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]
    (row,) = over_seeds([(entry(0), one_seed)])
    assert (
        row["effect"][0] == pytest.approx(1.0) and row["effect"][1] == 0.0 and 2 <= row["effect"][2] <= 4
    )  # a ninth of the groups decides


def test_true_statements_are_rates_and_changes_over_groups(tmp_path):
    """Two groups with two statements each: under A the log-odds change by +1 and -3 in the groups, so by -1; one of four is denied."""
    rows = [
        {"condition": condition, "measure": measure, "group": group, "value": value, "hit": value > 0}
        for measure in ("agreement_with_true_statements", "unrelated_text_nats")
        for condition, shift in (("no prompt", (0.0, 0.0)), ("A", (1.0, -3.0)))
        for group, more, values in (("g1", shift[0], (1.0, 5.0)), ("g2", shift[1], (2.0, 4.0)))
        for value in (values[0] + more, values[1] + more)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "off_target.parquet")
    found = true_statements(tmp_path)
    assert found["A"]["true_rate"] == 0.75 and found["A"]["true_change"][0] == -1.0
    assert found["no prompt"] == {"true_rate": 1.0, "true_change": [0.0, 0.0, 0.0]}
    assert found["A"]["true_change"][1] == pytest.approx(-1.0 - 12.7062 * 2, abs=1e-3)
