"""Charts for notebooks: what they hold, that they save without a browser, and circuitsvis with its adapter."""

from __future__ import annotations

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.support.browser import Tab, needs_chromium
from tests.support.real_run import HOSTILE
from workbench.errors import UserError
from workbench.html_text import shorten, visible
from workbench.report import figures
from workbench.report.circuitsvis_views import attention_view, token_view
from workbench.runs import read_run_file
from workbench.schema import SearchFile
from workbench.search import Frontier


def load(directory, name):
    return json.loads((directory / name).read_text())


def data_of(chart: alt.LayerChart, columns: set[str]) -> pd.DataFrame:
    sets = [pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()]
    return next(frame for frame in sets if columns <= set(frame.columns))


def test_the_forest_has_every_condition_with_a_difference(make_run):
    comparison = load(make_run(), "comparison.json")
    drawn = data_of(figures.forest(comparison), {"change", "condition"}).set_index("condition")
    own = next(c for c in comparison["conditions"] if c["name"] == "resga")["differences"][0]
    assert len(drawn) == len(comparison["conditions"]) - 1 and drawn.loc["RESGA", "change"] == pytest.approx(
        own["log_odds"]
    )
    points = data_of(
        figures.forest(SimpleNamespace(to_json=lambda: comparison), unit="points"), {"change"}
    ).set_index("condition")
    assert points.loc["RESGA", "change"] == pytest.approx(100 * own["value"])
    with pytest.raises(UserError, match="unknown unit"):
        figures.forest(comparison, unit="metres")


def test_a_searchs_own_frontier_draws_as_its_file_does(make_run):
    directory = make_run()
    entry = load(directory, "search/resga.json")
    own = Frontier.from_file(read_run_file(directory / "search/resga.json", SearchFile), pd.DataFrame())
    drawn, read = (data_of(figures.frontier(found), {"cross_entropy"}) for found in (own, entry))
    pd.testing.assert_frame_equal(drawn, read)
    assert sorted(drawn["cross_entropy"]) == sorted(c["fluency"] for c in entry["candidates"])


def test_the_heatmap_shades_by_row(make_run):
    table = pd.read_parquet(make_run() / "attribution.parquet")
    drawn = data_of(figures.heatmap(table), {"share"})
    assert drawn.groupby("target")["share"].apply(lambda v: v.abs().max()).round(6).eq(1).all()
    assert (np.sign(drawn["share"]) == np.sign(drawn["mean"])).all()


def runs_table() -> pd.DataFrame:
    """Two seeds of three conditions, a hostile name among them."""
    kinds = [
        ("none", "no prompt", None, None),
        ("resga", "RESGA", -3.0, 2000.0),
        ("manual", f"manual: {HOSTILE[0]}", -1.0, None),
        ("constant_answer", "always B", -9.0, None),
    ]
    rows = [
        {
            "persona": "sycophancy",
            "sign": "suppress",
            "kind": kind,
            "condition": name,
            "shift": shift and shift - seed,
            "cross_entropy": shift and 6.0,
            "prompt": HOSTILE[1],
            "model_calls": calls,
            "token_layers": calls,
            "flops": calls,
            "seconds": calls,
        }
        for seed in range(2)
        for kind, name, shift, calls in kinds
    ]
    return pd.DataFrame(rows)


def test_runs_over_seeds_show_mean_and_t_interval_and_no_constant():
    drawn = data_of(figures.seeds(runs_table()), {"mean", "low"}).set_index("shown")
    assert set(drawn.index) == {"RESGA", "manual"}
    row = drawn.loc["RESGA"].iloc[0]
    low, high = stats.t.interval(0.95, 1, loc=-3.5, scale=stats.sem([-3.0, -4.0]))
    assert row["mean"] == pytest.approx(-3.5) and (row["low"], row["high"]) == pytest.approx((low, high))


def test_shifts_against_a_cost_leave_out_what_cost_nothing():
    drawn = data_of(figures.against(runs_table(), "flops"), {"flops", "shift"})
    assert set(drawn["shown"]) == {"RESGA"}
    assert set(data_of(figures.against(runs_table()), {"cross_entropy"})["shown"]) == {"RESGA", "manual"}
    with pytest.raises(UserError, match="unknown quantity"):
        figures.against(runs_table(), "metres")
    with pytest.raises(UserError, match="nothing to draw"):
        figures.seeds(runs_table()[:1])


@pytest.mark.parametrize("name", ["forest", "frontier", "heatmap", "layers", "seeds", "against"])
@pytest.mark.parametrize("hostile", [False, True])
def test_charts_save_as_svg_and_png(make_run, tmp_path, name, hostile):
    directory = make_run(hostile=hostile, tokens=14)
    chart = {
        "forest": lambda: figures.forest(load(directory, "comparison.json")),
        "frontier": lambda: figures.frontier(load(directory, "search/frontier.json")["searches"]["resga"]),
        "heatmap": lambda: figures.heatmap(pd.read_parquet(directory / "attribution.parquet")),
        "layers": lambda: figures.layers(load(directory, "direction.json")),
        "seeds": lambda: figures.seeds(runs_table()),
        "against": lambda: figures.against(runs_table()),
    }[name]()
    chart.save(tmp_path / "x.svg")
    chart.save(tmp_path / "x.png")
    assert ElementTree.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said():
    for draw in (
        lambda: figures.forest({"conditions": []}),
        lambda: figures.frontier({"candidates": []}),
        lambda: figures.layers(pd.DataFrame()),
    ):
        with pytest.raises(UserError, match="nothing to draw"):
            draw()


@needs_chromium
def test_circuitsvis_shows_hostile_tokens_as_text(browser, tmp_path):
    values = np.linspace(-1, 1, len(HOSTILE) * 2).reshape(len(HOSTILE), 2)
    view = token_view(HOSTILE, values, ["answer <b>", "axis"])._repr_html_()
    path = tmp_path / "view.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><title>mine</title>{view}', encoding="utf-8")
    tab = Tab(browser.new_page())
    tab.page.goto(path.as_uri())
    tab.page.wait_for_function("document.body.innerText.includes('axis')")
    shown = tab.page.inner_text("body").replace("\u00a0", " ")
    for token in HOSTILE:
        assert shorten(visible(token), 200).translate(str.maketrans("<>&", "\u2039\u203a\uff06")) in shown, (
            token
        )
    assert "answer \u2039b\u203a" in shown
    assert (
        tab.page.title() == "mine"
        and tab.page.locator("img").count() == 0
        and tab.page.locator("script").count() <= 1
    )
    tab.page.close()
    assert [line for line in tab.trouble if "GL Driver" not in line] == []


def test_views_of_the_wrong_size_are_refused():
    with pytest.raises(UserError, match=r"\(2, 1\)"):
        token_view(["a", "b"], np.zeros((3, 1)), ["x"])
    with pytest.raises(UserError, match="heads, 2, 2"):
        attention_view(["a", "b"], np.zeros((1, 3, 3)))
    assert "unpkg" not in attention_view(["a", "b"], np.full((1, 2, 2), 0.5)).html
