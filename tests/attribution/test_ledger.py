"""The ledger: its table against hand arithmetic and scipy, the judge, pairs, and mistakes told in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import workbench as wb
from tests.support.attribution_toys import TEXT, autoencoder, axis, contexts, targets
from tests.support.toy_models import random_model
from workbench.attribution import (
    AttributionOptions,
    AttributionTarget,
    EffectEstimate,
    Ledger,
    TokenRemoval,
    attribute,
)
from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.token_interactions import interactions
from workbench.attribution.token_removal import drop
from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.objectives import answer_log_odds, latent_activation
from workbench.report import ledger_grid as drawn
from workbench.schema import AttributionFile


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return attribute(random_model(), TEXT, targets(), contexts(n=100), ("gradient_x_input",))


def test_a_cell_is_mean_spread_and_clustered_interval_over_contexts(ledger):
    values = ledger.estimates["removal"].values
    cell = ledger.cell(1, "axis")
    assert cell["mean"] == pytest.approx(values[:, 1, 1].mean()) and cell["sd"] == pytest.approx(
        values[:, 1, 1].std(ddof=1)
    )
    means = [
        values[[g == group for g in ledger.groups], 1, 1].mean() for group in dict.fromkeys(ledger.groups)
    ]
    assert len({ledger.groups.count(g) for g in ledger.groups}) == 1, (
        "equal groups, where the interval is the plain one of their means"
    )
    low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert (cell["low"], cell["high"]) == (pytest.approx(low), pytest.approx(high))
    assert len(ledger.table) == len(ledger.tokens) * len(ledger.names) * 2


def test_the_judge_is_always_there_and_agrees_with_itself(ledger):
    assert set(ledger.estimates) == {"removal", "gradient_x_input"}
    row = ledger.agreement[ledger.agreement["target"] == "axis"].iloc[0]
    means = ledger.means("gradient_x_input"), ledger.means("removal")
    assert row["rank_correlation"] == pytest.approx(stats.spearmanr(means[0][:, 1], means[1][:, 1]).statistic)
    twin = replace(
        ledger, estimates={"removal": ledger.estimates["removal"], "twin": ledger.estimates["removal"]}
    )
    varying = [name for t, name in enumerate(ledger.names) if np.ptp(ledger.means()[:, t]) > 0]
    alive = twin.agreement[twin.agreement["target"].isin(varying)]
    assert len(alive) >= 3 and (alive["rank_correlation"] > 0.999).all() and (alive["top"] == 1).all()
    assert twin.agreement.set_index("target")["rank_correlation"].isna()["latent 5"]


def test_the_total_is_with_and_without_the_prompt():
    model, found = random_model(), contexts(n=2, metric="letters")
    ledger = attribute(model, TEXT, {}, found, (), options=AttributionOptions(pairs=0, nodes=0))
    with_, without = (wb.answer(model, found, prompt).log_odds for prompt in (TEXT, None))
    np.testing.assert_allclose(ledger.total[:, 0], with_ - without, atol=1e-5)


def test_pairs_are_the_second_difference():
    runner, found = runner_for(random_model()), contexts(n=3)
    problem = AttributionProblem(runner, ledger_ids(runner, found), found, as_targets(targets()))
    removal = TokenRemoval().estimate(problem).values
    pair = interactions(problem, removal, top=3)[0]
    i, j, t = pair.first, pair.second, [x.name for x in problem.targets.items].index(pair.target)
    s = [
        problem.scores([p])[0][:, t].mean()
        for p in (
            problem.prompt,
            drop(problem.prompt, i),
            drop(problem.prompt, j),
            drop(problem.prompt, i, j),
        )
    ]
    assert (
        pair.mean == pytest.approx(s[0] - s[1] - s[2] + s[3], abs=1e-5) and pair.low <= pair.mean <= pair.high
    )


def ledger_ids(runner, found):
    from workbench.prompt_tokens import encode_prompt

    return encode_prompt(runner, found, TEXT)


def test_the_summary_is_strict_json_and_the_report_draws_both_files(ledger, tmp_path):
    summary = json.loads(json.dumps(ledger.to_file().to_json(), allow_nan=False))
    assert summary["tokens"] == list(ledger.tokens) and "".join(summary["tokens"]) == TEXT
    missing: list[str] = []
    view = drawn.view(ledger.table, AttributionFile.from_json(summary), missing)
    assert not missing and view["tokens"][1] != "" and view["targets"][0]["name"] == "answer log-odds"
    assert view["cells"]["removal"][1][2][0] == pytest.approx(ledger.means()[2, 1], rel=1e-3)
    ledger.table.to_parquet(tmp_path / "attribution.parquet")


def test_one_token_is_enough():
    estimators = ("removal", "gradient_x_input", "shapley", "integrated_gradients")
    found = attribute(
        random_model(), "no", targets(), contexts(n=2), estimators, options=AttributionOptions(nodes=0)
    )
    np.testing.assert_allclose(found.means("shapley"), found.means("removal"), atol=1e-5)
    assert found.agreement["rank_correlation"].isna().all() and not found.pairs
    json.dumps(found.to_file().to_json(), allow_nan=False)


def test_what_counts_as_a_target():
    found = as_targets(
        [axis(), latent_activation(autoencoder(), [3]), AttributionTarget("mine", answer_log_odds())]
    )
    assert [(t.name, t.kind) for t in found.items] == [
        ("axis", "direction"),
        ("latent 3", "latent"),
        ("mine", "answer"),
    ]
    assert [t.name for t in as_targets([]).items] == ["answer log-odds"]
    for wrong, words in (([3.5], "float"), ([axis(), axis()], "twice")):
        with pytest.raises(UserError, match=words):
            as_targets(wrong)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": ()}, "empty"),
        ({"prompt": (10**6,)}, "does not exist"),
        ({"estimators": ("magic",)}, "magic"),
        ({"targets": {"deep": axis(site=Site(7))}}, "layer 7"),
        ({"prompt": (40,) * 300}, "holds 256"),
    ],
)
def test_mistakes_are_told_in_one_line(change, words):
    given = {"prompt": TEXT, "targets": targets(), "estimators": ("removal",)} | change
    with pytest.raises(UserError, match=words) as error:
        attribute(random_model(), given["prompt"], given["targets"], contexts(n=2), given["estimators"])
    assert "\n" not in str(error.value)


def test_it_shows_itself_escaped(ledger):
    hostile = replace(
        ledger, tokens=("</script><img onerror=1>", "\u202e" + "a" * 10_000, *ledger.tokens[2:])
    )
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append(tag)
    parser.feed(hostile._repr_html_())
    assert (
        set(seen) <= {"style", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
        and "⟨U+202E⟩a" in hostile._repr_html_()
    )
    assert (
        len(hostile._repr_html_()) < len(ledger._repr_html_()) + 1_000
        and "characters)" in hostile._repr_html_()
    )
    assert "rank correlation" in hostile._repr_html_()


def test_sampling_error_and_completeness_reach_the_summary(ledger):
    shape = ledger.estimates["removal"].values.shape
    made = EffectEstimate(np.full(shape, 0.15), np.full(shape[1:], 0.25), dict.fromkeys(ledger.names, 0.5))
    summary = replace(ledger, estimates={**ledger.estimates, "shapley": made}).to_file().to_json()
    lacking = 0.5 / (0.5 + 0.15 * shape[1])
    assert any("is 0.25" in line for line in summary["notes"]) and any(
        f"lack {100 * lacking:.0f} %" in line for line in summary["notes"]
    )


def test_a_ledger_goes_to_a_tensor_and_back():
    ledger = attribute(
        random_model(),
        TEXT,
        targets(),
        contexts(n=4),
        ("removal", "gradient_x_input"),
        options=AttributionOptions(mediation=False),
    )
    effects = ledger.to_tensor()
    assert (
        effects.shape == (len(ledger.groups), len(ledger.tokens), len(ledger.names))
        and effects.dtype == torch.float64
    )
    again = Ledger.from_tensor(
        effects,
        ledger.tokens,
        ledger.targets,
        torch.from_numpy(ledger.total),
        ledger.groups,
        ledger.prompt_ids,
    )
    pd.testing.assert_frame_equal(again.table, ledger.table[ledger.table["estimator"] == "removal"])
    assert torch.equal(again.to_tensor(), effects) and again.to_file().totals == ledger.to_file().totals
    with pytest.raises(UserError, match="no estimator 'shapley'"):
        ledger.to_tensor("shapley")


def test_a_ledger_of_effects_computed_elsewhere_has_their_means_and_sums():
    effects = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]])
    ledger = Ledger.from_tensor(effects, ["be", " so"], wb.answer_log_odds())
    assert (
        ledger.means().tolist() == [[2.0], [1.0]]
        and ledger.total.tolist() == [[3.0], [3.0]]
        and ledger.text == "be so"
    )
    assert "be" in ledger._repr_html_()
    for change in (
        {"tokens": ["be"]},
        {"groups": ["a"]},
        {"total": torch.zeros(2)},
        {"effects": effects * float("nan")},
    ):
        with pytest.raises(UserError, match="expected"):
            Ledger.from_tensor(
                **{"effects": effects, "tokens": ["be", " so"], "targets": wb.answer_log_odds()} | change
            )
