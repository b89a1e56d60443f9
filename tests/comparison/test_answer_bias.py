"""The part of an effect that is a preference for one answer, against regression and planted values."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from tests.support.toy_models import random_model
from workbench.comparison import compare
from workbench.comparison.answer_bias import answer_bias
from workbench.conditions import Condition, NoPrompt, Prompt
from workbench.personas import load_persona
from workbench.runs import read_json, write_run_file
from workbench.statistics import cluster_interval


class Shifted(Condition):
    """Changes the log-odds of the answer "No" and those of the persona by given amounts."""

    kind, method = "resga", "planted"

    def __init__(self, name: str, no: float, persona: float) -> None:
        self.name, self.no, self.persona = name, no, persona

    def answer(self, model, contexts):
        bare = NoPrompt().answer(model, contexts)
        noise = np.random.default_rng(0).normal(0, 0.01, len(contexts))
        sides = np.array([1.0 if context.item.matching == "No" else -1.0 for context in contexts])
        return replace(bare, log_odds=bare.log_odds + self.no * sides + self.persona + noise)


def planted(seed: int, n_groups: int = 60, effect: float = -1.5, bias: float = 0.4):
    """Changes with a group effect, where "No" shows the persona in a quarter of the questions."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 3)
    matching = np.where(rng.random(len(groups)) < 0.25, "No", "Yes")
    noise = rng.normal(0, 0.3, n_groups)[groups] + rng.normal(0, 0.3, len(groups))
    return effect + bias * np.where(matching == "No", 1, -1) + noise, list(matching), groups.tolist()


def test_it_is_the_regression_on_the_matching_answer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels uses what pandas deprecates, when it is imported
        from statsmodels.regression.linear_model import OLS
    change, matching, groups = planted(0)
    found = answer_bias(change, matching, groups)
    design = np.column_stack([np.ones(len(change)), np.where(np.array(matching) == "No", 1.0, -1.0)])
    fitted = OLS(change, design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert [found.balanced.estimate, found.bias.estimate] == pytest.approx(list(fitted.params))
    widths = [i.high - i.low for i in (found.balanced, found.bias)]
    assert widths == pytest.approx(list(fitted.conf_int()[:, 1] - fitted.conf_int()[:, 0]), rel=0.1)


def test_the_mean_effect_is_the_balanced_effect_and_the_part_of_the_bias():
    change, matching, groups = planted(1)
    found = answer_bias(change, matching, groups)
    assert found.balanced.estimate + found.in_mean == pytest.approx(change.mean())
    assert found.n + found.n_other == len(change) and found.n == matching.count("No")


def test_intervals_cover_the_planted_values():
    found = [answer_bias(*planted(seed)) for seed in range(200)]
    covered = [(f.balanced.low <= -1.5 <= f.balanced.high, f.bias.low <= 0.4 <= f.bias.high) for f in found]
    assert np.mean(covered, axis=0) == pytest.approx([0.95, 0.95], abs=0.045)


def test_a_balanced_split_has_the_same_effect():
    change, _, groups = planted(2)
    matching = ["No", "Yes"] * (len(change) // 2)
    found = answer_bias(change, matching, groups)
    assert found.in_mean == 0 and found.balanced.estimate == pytest.approx(
        cluster_interval(change, groups).estimate
    )


@pytest.mark.parametrize("matching", [["Yes"] * 3, ["a", "b", "c"]])
def test_one_answer_or_more_than_two_have_none(matching):
    assert answer_bias(np.zeros(3), matching, [0, 1, 2]) is None


def test_a_comparison_states_and_stores_it(tmp_path):
    split = load_persona("english_sycophancy").split().test
    compared = compare(random_model(), split, [Prompt("be honest")])
    found = compared["manual: be honest"].difference("no prompt").answer_bias
    counts = {answer: sum(item.matching == answer for item in split) for answer in ("No", "Yes")}
    assert (found.answer, found.n, found.n_other) == ("No", counts["No"], counts["Yes"])
    table = compared.table.set_index("condition").loc["manual: be honest"]
    assert table["answer_bias"] == found.bias.estimate and table["balanced_shift"] == found.balanced.estimate
    write_run_file(tmp_path / "comparison.json", compared.to_file())
    entry = read_json(tmp_path / "comparison.json")["conditions"][1]["differences"][0]["answer_bias"]
    assert (entry["bias"], entry["balanced"]) == (found.bias.estimate, found.balanced.estimate)


def test_a_primary_condition_that_only_prefers_one_answer_is_warned_about():
    """On this split "Yes" shows the persona twice as often as "No", so a rise of "No" looks like suppression."""
    split = load_persona("english_sycophancy").split().test
    compared = compare(random_model(), split, [Shifted("only no", 1.0, 0.0), Shifted("persona", 0.05, -1.0)])
    lines = [line for line in compared.warnings if "is a preference for one answer" in line]
    assert len(lines) == 1 and lines[0].startswith("only no: -0.33 of the effect of -0.33")
