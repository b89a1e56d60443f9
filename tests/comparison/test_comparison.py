"""The comparison: its figures by hand on four items, its JSON contract, and several runs in one table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from statsmodels.stats.multitest import multipletests

from tests.support.toy_models import random_model, toy_persona
from workbench.comparison import (
    ComparisonOptions,
    agreement_with_truth,
    compare,
    compare_runs,
    other_persona_rates,
    text_cross_entropy,
)
from workbench.conditions import Condition, ConstantAnswer, Found, NoPrompt, Prompt
from workbench.contexts import Contexts, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer, package
from workbench.models import runner_for
from workbench.personas import Item, LetterForm, Persona, Split
from workbench.search import Candidate

MODEL = random_model()
COST = {"token_layers", "token_layers_backward", "token_layers_repeated", "flops", "model_calls", "seconds"}
SPLITS = toy_persona().split()


@dataclass(frozen=True)
class Scripted(Condition):
    """Says what it is told: log-odds of an item by its id, in both orders."""

    log_odds: dict[str, float]
    name: str = "scripted"
    kind: str = "resga"
    method: str = "scripted"

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        return package(contexts, np.array([self.log_odds[c.item.id] for c in contexts]))


@dataclass(frozen=True)
class ScriptedNone(Scripted):
    name: str = "no prompt"
    kind: str = "none"


def four_items() -> Split:
    """Four items, a group each."""
    items = tuple(Item(str(i), f"Is it {i}?", "yes", "no", f"g{i}") for i in range(4))
    letters = LetterForm("{question}\n (A) {a}\n (B) {b}", "(", ("A", "B"))
    return Split("test", items, Persona("four", "", items, "letters", letters, {}, ()))


def by_hand():
    before, after = {"0": 1.0, "1": 2.0, "2": 3.0, "3": -1.0}, {"0": -1.0, "1": -2.0, "2": 1.0, "3": -2.0}
    return compare(MODEL, four_items(), [ScriptedNone(before), Scripted(after)], sign="suppress")


def test_figures_of_four_items_by_hand() -> None:
    comparison = by_hand()
    none, after = comparison["no prompt"], comparison["scripted"]
    assert (none.rate.estimate, after.rate.estimate) == (0.75, 0.25)
    assert (none.log_odds.estimate, after.log_odds.estimate) == (1.25, -1.0)
    assert none.rate.n == 8 and none.rate.groups == 4
    shift = after.difference("no prompt")
    assert shift.rate.value == -0.5 and shift.log_odds.value == -2.25  # -2, -4, -2, -1
    assert (
        shift.log_odds.p == 2 / 16 and shift.rate.p == 2 / 4
    )  # two of four clusters change: all signs of two
    assert none.probability.estimate == pytest.approx(
        np.mean([1 / (1 + math.exp(-x)) for x in (1, 2, 3, -1)])
    )
    assert none.letter_a_share == 0.5 and none.orders_agree == 1.0
    assert any("4 question groups" in line for line in comparison.warnings)


def test_a_constant_letter_is_shown_to_be_neutral_and_four_noisy_items_are_not() -> None:
    comparison = compare(
        MODEL, four_items(), [ScriptedNone({"0": 1.0, "1": 1.0, "2": -1.0, "3": -1.0}), ConstantAnswer("A")]
    )
    assert comparison["always A"].rate.estimate == comparison["no prompt"].rate.estimate == 0.5
    assert comparison["always A"].neutral.equivalent and not comparison["no prompt"].neutral.equivalent


def test_both_orders_of_an_item_are_one_cluster() -> None:
    one_order = compare(
        MODEL,
        four_items(),
        [ScriptedNone({str(i): float(i) for i in range(4)})],
        options=ComparisonOptions(orders="random"),
    )
    both = compare(MODEL, four_items(), [ScriptedNone({str(i): float(i) for i in range(4)})])
    assert (both["no prompt"].rate.n, one_order["no prompt"].rate.n) == (8, 4)
    assert both["no prompt"].log_odds.low == pytest.approx(one_order["no prompt"].log_odds.low)


def test_a_real_model_is_read_as_answers_reads_it() -> None:
    comparison = compare(MODEL, SPLITS.test, ["Be blunt.", ConstantAnswer("A")])
    contexts = make_contexts(MODEL, SPLITS.test)
    prompted = comparison["manual: Be blunt."]
    assert comparison.entries[0].name == "no prompt"
    assert np.array_equal(prompted.answers.log_odds, answer(MODEL, contexts, "Be blunt.").log_odds)
    assert prompted.rate.estimate == answer(MODEL, contexts, "Be blunt.").rate
    assert prompted.cross_entropy > 0 and prompted.prompt_tokens > 1
    constant = comparison["always A"]
    assert constant.rate.estimate == 0.5 and constant.letter_a_share == 1.0


def test_rows_hold_every_answer_once() -> None:
    comparison = compare(MODEL, SPLITS.test, ["Be blunt."])
    rows = comparison.rows
    assert len(rows) == 2 * 2 * len(SPLITS.test)
    assert not rows.duplicated(["condition", "item", "matching_first"]).any()
    assert rows.groupby("condition")["hit"].mean()["no prompt"] == comparison["no prompt"].rate.estimate


def test_holm_corrects_over_the_primary_conditions_alone() -> None:
    rng = np.random.default_rng(0)
    ids = [item.id for item in SPLITS.test]
    base = ScriptedNone(dict.fromkeys(ids, 0.0))
    conditions = [
        Scripted({i: m + rng.normal() for i in ids}, name=f"c{k}") for k, m in enumerate((0.3, 1.0, 2.0))
    ]
    comparison = compare(
        MODEL, SPLITS.test, [base, *conditions], options=ComparisonOptions(primary=["c0", "c2"])
    )
    raw = [comparison[name].difference("no prompt").log_odds.p for name in ("c0", "c2")]
    adjusted = [comparison[name].difference("no prompt").log_odds_p_adjusted for name in ("c0", "c2")]
    assert adjusted == pytest.approx(multipletests(raw, method="holm")[1])
    assert comparison["c1"].difference("no prompt").log_odds_p_adjusted is None


def test_the_best_manual_prompt_is_the_one_that_selection_chose() -> None:
    first, second = Prompt("Be blunt.", "a"), Prompt("Say no.", "b", selection_rate=0.4)
    comparison = compare(MODEL, SPLITS.test, [first, second, ConstantAnswer("B")])
    assert comparison.manual == "b"
    assert [d.to for d in comparison["always B"].differences] == ["no prompt", "b"]
    assert [d.to for d in comparison["b"].differences] == ["no prompt"]


def test_the_json_is_the_contract() -> None:
    found = Candidate((1, 2), "Be blunt.", 1.0, 4.0, selection_rate=0.3)
    options = ComparisonOptions(splits=list(SPLITS), seed=3, collateral={"zero": lambda m, c: 0.0})
    comparison = compare(MODEL, SPLITS.test, [found, "Say no."], options=options)
    entry = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert (
        entry["schema"] == 1
        and entry["seed"] == 3
        and entry["sign"] == "suppress"
        and entry["metric"] == "letters"
    )
    assert entry["persona"] == "toy" and isinstance(entry["model"], str)
    assert set(entry["splits"]) == {"train", "search", "selection", "test"}
    assert entry["splits"]["test"] == {
        "n": len(SPLITS.test),
        "groups": SPLITS.test.n_groups,
        "hash": SPLITS.test.hash,
    }
    fields = {
        "name",
        "kind",
        "method",
        "prompt",
        "rate",
        "ci",
        "log_odds",
        "log_odds_ci",
        "letter_a_share",
        "n",
        "groups",
        "fluency",
    }
    fields |= {"selection_rate", "differences", "collateral", "cost"}
    for condition in entry["conditions"]:
        assert fields <= condition.keys() and set(condition["cost"]) == COST
        to_none = next(d for d in condition["differences"] if d["to"] == "no prompt")
        assert {"to", "value", "ci", "p", "p_adjusted", "log_odds", "log_odds_ci"} <= to_none.keys()
        assert condition["collateral"] == {"zero": 0.0}
    assert [c["fluency"] for c in entry["conditions"] if c["kind"] == "resga"] == [4.0]


def test_one_line_a_condition_is_printed() -> None:
    comparison = by_hand()
    lines = repr(comparison).splitlines()
    assert lines[0] == "Comparison(four on " + comparison.model + ": 8 contexts in 4 groups of test)"
    assert lines[1].startswith("  no prompt: rate 0.75 [") and "effect" not in lines[1]
    assert lines[2].startswith("  scripted: rate 0.25 [") and ", effect -2.25 [" in lines[2]  # -2, -4, -2, -1
    assert lines[3].startswith("  note: 4 question groups") and len(repr(comparison)) < 600


def test_the_optimism_of_choosing_stands_beside_the_test_rate() -> None:
    found = Found("Be blunt.", "resga", "EPO", selection_rate=0.3, name="found", search_rate=0.1)
    comparison = compare(MODEL, SPLITS.test, [found])
    row = comparison.table.set_index("condition").loc["found"]
    assert (row["search_rate"], row["selection_rate"], row["rate"]) == (
        0.1,
        0.3,
        comparison["found"].rate.estimate,
    )
    assert comparison.to_json()["conditions"][1]["search_rate"] == 0.1


def test_text_answers_have_no_letters() -> None:
    comparison = compare(MODEL, SPLITS.test, ["Be blunt."], metric="text")
    assert comparison.metric == "text" and comparison["no prompt"].rate.n == len(SPLITS.test)
    assert all(e.letter_a_share is None and e.orders_agree is None for e in comparison.entries)


def test_a_condition_that_always_says_one_letter_is_pointed_out() -> None:
    class Stuck(Prompt):
        def answer(self, model: Any, contexts: Contexts) -> Answers:
            return package(contexts, np.where([c.matching_first for c in contexts], -3.0, 3.0))

    comparison = compare(MODEL, SPLITS.test, [Stuck("B B B", "stuck"), ConstantAnswer("A")])
    assert any(
        "leans on one letter" in line and "stuck" in line and "always" not in line
        for line in comparison.warnings
    )
    assert comparison["stuck"].orders_agree == 0.0


def test_what_is_shown_in_a_notebook_is_escaped() -> None:
    html = compare(MODEL, SPLITS.test, [Prompt("<script>alert(1)</script>", "<b>x</b>")])._repr_html_()
    assert "<script>" not in html and "<b>x" not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": ["Say no.", "Say no."]}, "two conditions are named"),
        ({"baseline": "nothing"}, "baseline 'nothing' is none of the conditions"),
        (
            {"options": ComparisonOptions(primary=["resga"])},
            "primary condition 'resga' is none of the conditions",
        ),
        ({"sign": "less"}, "'suppress' or 'induce'"),
        ({"conditions": [3]}, "found int"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(change: dict, message: str) -> None:
    before = runner_for(MODEL).meter.forward
    with pytest.raises(UserError, match=message):
        compare(MODEL, SPLITS.test, **{"conditions": ["Say no."], **change})
    assert runner_for(MODEL).meter.forward == before


# --- off-target --------------------------------------------------------------------------------------------------------


def test_collateral_measures_what_it_says() -> None:
    persona = toy_persona()
    true = tuple(Item(f"t{i}", f"Is {i} a number?", "yes", "no", f"t{i}") for i in range(3))
    with_truth = Split(
        "test",
        SPLITS.test.items,
        Persona("p", "", persona.items, "letters", persona.letters, {}, (), true_items=true),
    )
    assert len(agreement_with_truth(MODEL, ConstantAnswer("A"), with_truth).log_odds) == 6
    with pytest.raises(UserError, match="no true statements"):
        agreement_with_truth(MODEL, NoPrompt(), SPLITS.test)
    others = other_persona_rates(MODEL, Prompt("Be blunt."), {"other": SPLITS.selection})
    assert len(others["other"].log_odds) == 2 * len(SPLITS.selection)


def test_text_cross_entropy_is_the_models_own() -> None:
    runner, text = runner_for(MODEL), "The river runs."
    rendered = runner.render([{"role": "user", "content": text}])
    ids = runner.encode(rendered)
    start = len(runner.encode(rendered[: rendered.index(text)]))
    stop = len(runner.encode(rendered[: rendered.index(text) + len(text)]))
    log_probs = MODEL(torch.tensor([ids]))[0].log_softmax(-1)
    by_hand = -np.mean([float(log_probs[k - 1, ids[k]]) for k in range(start, stop)])
    assert text_cross_entropy(MODEL, NoPrompt(), [text]) == pytest.approx(by_hand, rel=1e-4)
    assert text_cross_entropy(MODEL, Prompt("Be blunt."), [text]) != pytest.approx(by_hand, rel=1e-4)


# --- several runs ------------------------------------------------------------------------------------------------------


def write_run(path: Path, split: Split, seed: int, shift: float = -1.0, **changes: Any) -> Path:
    before = ScriptedNone({item.id: 1.0 for item in split})
    after = Scripted({item.id: 1.0 + shift for item in split})
    entry = compare(MODEL, split, [before, after], options=ComparisonOptions(seed=seed)).to_json() | changes
    path.mkdir()
    (path / "comparison.json").write_text(json.dumps(entry))
    return path


def test_runs_of_several_seeds_become_one_table_with_their_spread(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / str(k), SPLITS.test, k, shift) for k, shift in enumerate((-1.0, -2.0, -3.0))
    ]
    runs = compare_runs(paths)
    assert len(runs.table) == 6 and runs.table["run"].nunique() == 3
    spread = runs.by_condition.set_index("condition").loc["scripted"]
    assert (spread["runs"], spread["shift"], spread["shift_sd"]) == (3, -2.0, 1.0)
    assert (spread["shift_smallest"], spread["shift_largest"]) == (-3.0, -1.0)
    assert json.dumps(runs.to_json(), allow_nan=False)


def test_runs_that_repeat_one_result_count_it_once(tmp_path: Path) -> None:
    """A control drawn with the same seed in two runs is one draw: no interval of width 0, and the mean of what differs."""
    paths = [
        write_run(tmp_path / str(k), SPLITS.test, k, shift) for k, shift in enumerate((-1.0, -1.0, -3.0))
    ]
    spread = compare_runs(paths).by_condition.set_index("condition").loc["scripted"]
    assert (spread["runs"], spread["shift"], spread["shift_smallest"], spread["shift_largest"]) == (
        2,
        -2.0,
        -3.0,
        -1.0,
    )
    low, high = scipy.stats.t.interval(0.95, 1, loc=-2.0, scale=scipy.stats.sem([-1.0, -3.0]))
    assert (spread["shift_low"], spread["shift_high"]) == pytest.approx((low, high))
    same = compare_runs(paths[:2]).by_condition.set_index("condition").loc["scripted"]
    assert same["runs"] == 1 and "shift_low" not in same.dropna()


def test_effect_against_budget_is_the_mean_over_runs_of_equal_budget(tmp_path: Path) -> None:
    """Two budgets, two seeds each; the second seed of each costs a little more, as searches do that stop at whole steps."""
    shifts, spent = (-1.0, -2.0, -3.0, -5.0), (100.0, 104.0, 400.0, 410.0)
    paths = []
    for k, (shift, calls) in enumerate(zip(shifts, spent, strict=True)):
        paths.append(write_run(tmp_path / str(k), SPLITS.test, k % 2, shift))
        file = paths[-1] / "comparison.json"
        entry = json.loads(file.read_text())
        entry["conditions"][1]["cost"]["model_calls"] = calls
        file.write_text(json.dumps(entry))
    curve = compare_runs(paths).against_budget("model_calls")
    assert (
        curve["budget"].tolist() == [102.0, 405.0]
        and curve["shift"].tolist() == [-1.5, -4.0]
        and curve["runs"].tolist() == [2, 2]
    )
    assert set(curve["condition"]) == {"scripted"}, "what costs nothing has no curve"
    with pytest.raises(UserError, match="expected one of model_calls, token_layers, flops, seconds"):
        compare_runs(paths).against_budget("money")


def test_runs_on_different_questions_are_refused_and_both_named(tmp_path: Path) -> None:
    one, other = (
        write_run(tmp_path / "one", SPLITS.test, 0),
        write_run(tmp_path / "other", SPLITS.selection, 0),
    )
    with pytest.raises(
        UserError,
        match=f"different questions: {one} on test {SPLITS.test.hash[:12]}.* of toy, {other} on selection",
    ):
        compare_runs([one, other])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"conditions": [{"name": "x"}]}, "field conditions.0.kind: Field required"),
        ({"splits": {}}, "no hash of the split 'test'"),
    ],
)
def test_a_run_of_another_shape_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare_runs([write_run(tmp_path / "run", SPLITS.test, 0, **changes)])


def test_other_metrics_missing_files_and_nothing_are_refused(tmp_path: Path) -> None:
    one, other = (
        write_run(tmp_path / "a", SPLITS.test, 0),
        write_run(tmp_path / "b", SPLITS.test, 0, metric="text"),
    )
    with pytest.raises(UserError, match="different metrics"):
        compare_runs([one, other])
    with pytest.raises(UserError, match=r"comparison\.json"):
        compare_runs([tmp_path])
    with pytest.raises(UserError, match="at least one"):
        compare_runs([])


def test_the_table_is_a_plain_frame() -> None:
    table = by_hand().table
    assert isinstance(table, pd.DataFrame) and list(table["condition"]) == ["no prompt", "scripted"]
    assert {"rate", "rate_low", "shift", "shift_low", "p", "p_adjusted", "letter_a", "prompt"} <= set(
        table.columns
    )
