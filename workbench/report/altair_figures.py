"""Charts for notebooks and papers, as Altair charts: `chart.save("x.svg")` and `.save("x.png")` work without a browser.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shape, sign or a label says the same again. Each
function takes a result object or the table that it is made of, and gives a chart that can be changed further.
"""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.budget import COSTS
from workbench.comparison.compare_runs import independent_runs
from workbench.conditions import GROUPS
from workbench.errors import UserError
from workbench.html_text import shorten, visible
from workbench.optional_packages import needs_extra
from workbench.plots.palette import BLACK, BLUE, CATEGORIES, DIVERGING, GREEN, GREY, ORANGE, PURPLE
from workbench.report.verdict import UNKNOWN, group_index, group_of, groups_of, label
from workbench.statistics import over_seeds

with needs_extra("notebook", "drawing figures"):
    import altair as alt

_SHAPES = {"found": "circle", "answer": "diamond", "written": "square", "inside": "triangle-up", "control": "cross", "other": "stroke"}
_COLOURS = {"found": BLUE, "answer": PURPLE, "written": ORANGE, "inside": GREEN, "control": GREY, "other": BLACK}
_TITLES = GROUPS | dict([UNKNOWN])


def forest(comparison: Any, unit: str = "log_odds", width: int = 420) -> alt.LayerChart:
    """Change against no prompt for each condition, with its interval. comparison: a `Comparison` or the content of
    comparison.json. unit: "log_odds", or "points" for percentage points of the rate. Left is less of the persona."""
    if unit not in ("log_odds", "points"):
        raise UserError(f"unknown unit {unit!r}: expected 'log_odds' or 'points'")
    content = comparison if isinstance(comparison, Mapping) else comparison.to_json()
    rows = [_forest_row(c, content.get("baseline", "no prompt"), unit) for c in content.get("conditions", [])]
    frame = _filled(pd.DataFrame([row for row in rows if row]), "no condition of this comparison has a difference to the baseline")
    title = "change of the mean log-odds" if unit == "log_odds" else "change of the rate, percentage points"
    frame = frame.sort_values("kind", key=lambda kinds: kinds.map(group_index), kind="stable")
    order = list(frame["condition"])
    y = alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    shared = alt.Chart(frame).encode(y=y, color=_by_group("color", frame), tooltip=["condition", "prompt", "change", "low", "high"])
    bars = shared.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    marks = shared.mark_point(filled=True, size=90, opacity=1).encode(x="change:Q", shape=_by_group("shape", frame))
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="x:Q")
    return alt.layer(zero, bars, marks).properties(width=width, height=22 * len(frame))


def seeds(runs: Any, width: int = 260) -> alt.FacetChart:
    """Change against no prompt for each condition over runs that differ in their seed: the mean with a t interval over runs, and a tick for
    each run; one panel a persona and sign. runs: a `RunsTable`, a `SweepResult`, or the table of either (results.parquet)."""
    frame = _each_run(runs)
    keys = ["persona", "sign", "shown"]
    draws = {key: list(independent_runs(part)["shift"]) for key, part in frame.groupby(keys)}
    spread = {key: over_seeds(part) if len(part) > 1 else None for key, part in draws.items()}
    means = [sum(draws[key]) / len(draws[key]) for key in frame[keys].itertuples(index=False, name=None)]
    found = [spread[key] for key in frame[keys].itertuples(index=False, name=None)]
    frame = frame.assign(mean=means, low=[s and s.interval.low for s in found], high=[s and s.interval.high for s in found])
    order = list(dict.fromkeys(frame["shown"]))
    base = alt.Chart().encode(
        y=alt.Y("shown:N", sort=order, title=None, axis=alt.Axis(labelLimit=240)),
        color=_by_group("color", frame), tooltip=["shown", "prompt", "shift", "mean", "low", "high"],
    )  # fmt: skip
    title = "change of the mean log-odds"
    runs_ticks = base.mark_tick(thickness=1, size=12, opacity=0.7).encode(x=alt.X("shift:Q", title=title))
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(x="mean:Q", shape=_by_group("shape", frame))
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color=GREY).encode(x=alt.datum(0.0))
    panel = alt.layer(zero, runs_ticks, bars, marks).properties(width=width, height=16 * len(order))
    return panel.facet(row=alt.Row("persona:N", title=None), column=alt.Column("sign:N", title=None), data=frame)


def against(runs: Any, what: str = "cross_entropy", width: int = 260, height: int = 180) -> alt.FacetChart:
    """Change against no prompt over what it took, a point a run and condition; one panel a persona and sign. what: "cross_entropy" (of
    the prompt, nats a token), or a cost of finding it on a logarithmic scale: "model_calls", "token_layers", "flops", "seconds".
    runs: as for `seeds`. Conditions without that figure (steering has no prompt, a written prompt no cost) are left out."""
    titles = {"cross_entropy": "cross-entropy, nats a token (left: more fluent)"} | {name: f"{name.replace('_', ' ')} spent" for name in COSTS}
    if what not in titles:
        raise UserError(f"unknown quantity {what!r}: expected one of {', '.join(titles)}")
    frame = _each_run(runs)
    has = frame[what].notna() & (frame[what].astype(float) > 0)
    frame = _filled(frame[has], f"no condition of these runs has a figure for {what}")
    scale = alt.Scale(zero=False) if what == "cross_entropy" else alt.Scale(type="log", nice=False)
    kinds = list(dict.fromkeys(frame["shown"]))
    colours = alt.Scale(domain=kinds, range=list(CATEGORIES))
    legend = alt.Legend(orient="bottom", columns=3, labelLimit=260)
    base = alt.Chart().encode(
        x=alt.X(f"{what}:Q", title=titles[what], scale=scale), y=alt.Y("shift:Q", title="change of the mean log-odds"),
        color=alt.Color("shown:N", scale=colours, title=None, legend=legend), shape=alt.Shape("shown:N", scale=alt.Scale(domain=kinds), title=None),
        tooltip=["shown", "prompt", "shift", what],
    )  # fmt: skip
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color=GREY).encode(y=alt.datum(0.0))
    panel = alt.layer(zero, base.mark_point(filled=True, size=50, opacity=0.8)).properties(width=width, height=height)
    return panel.facet(row=alt.Row("persona:N", title=None), column=alt.Column("sign:N", title=None), data=frame)


def frontier(found: Any, width: int = 420, height: int = 300) -> alt.LayerChart:
    """Objective against cross-entropy of a search's prompts; the chosen one is ringed. found: a `Frontier` or one search of
    search/frontier.json. Fluency is surprise in nats a token: left reads better."""
    candidates = found["candidates"] if isinstance(found, Mapping) else [vars(c) for c in found.candidates]
    rows = [
        {"prompt": _text(c["text"]), "objective": c["objective"], "cross_entropy": c["fluency"], "chosen": bool(c.get("chosen"))} for c in candidates
    ]
    frame = _filled(pd.DataFrame(rows), "this search kept no prompt").sort_values("cross_entropy")
    base = alt.Chart(frame).encode(
        x=alt.X("cross_entropy:Q", title="cross-entropy, nats a token (left: more fluent)", scale=alt.Scale(zero=False)),
        y=alt.Y("objective:Q", title="objective", scale=alt.Scale(zero=False)),
    )
    line = base.mark_line(interpolate="step-after", color=BLUE, opacity=0.4)
    points = base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(tooltip=["prompt", "objective", "cross_entropy"])
    ring = base.transform_filter("datum.chosen").mark_point(size=260, color="black", strokeWidth=1.6)
    return alt.layer(line, points, ring).properties(width=width, height=height)


def heatmap(ledger: Any, estimator: str = "removal", rows: int = 20) -> alt.LayerChart:
    """Targets by prompt tokens, each row shaded by its own largest effect, the effect written into the cell. ledger: a `Ledger`
    or its table (attribution.parquet). Orange with + raises the row's quantity, blue with − lowers it."""
    table = ledger if isinstance(ledger, pd.DataFrame) else ledger.table
    frame = _filled(table[table["estimator"] == estimator], f"no cell of the estimator {estimator!r} in this ledger")
    kept = list(dict.fromkeys(frame["target"]))[:rows]
    frame = frame[frame["target"].isin(kept)]
    peak = frame.groupby("target")["mean"].transform(lambda v: v.abs().max() or 1.0)
    tokens = [f"{position}  {_text(visible(token), 24)}" for position, token in zip(frame["position"], frame["token"])]
    frame = frame.assign(share=frame["mean"] / peak, shown=[f"{v:+.2g}".replace("-", "−") for v in frame["mean"]], token=tokens)
    order = list(dict.fromkeys(frame.sort_values("position")["token"]))
    base = alt.Chart(frame[["token", "target", "mean", "low", "high", "share", "shown"]]).encode(
        x=alt.X("token:N", sort=order, title=None, axis=alt.Axis(labelAngle=-45, orient="top")), y=alt.Y("target:N", sort=kept, title=None)
    )
    scale = alt.Scale(domain=[-1, 0, 1], range=list(DIVERGING), interpolate="rgb")
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", scale=scale, title="share of the row's largest"), tooltip=["token", "target", "mean", "low", "high"]
    )
    texts = base.mark_text(fontSize=10).encode(text="shown:N", color=alt.condition("abs(datum.share) > 0.75", alt.value("white"), alt.value("black")))
    return alt.layer(cells, texts).properties(width=max(160, 52 * len(order)), height=22 * len(kept))


def layers(scan: Any, width: int = 420, height: int = 240) -> alt.LayerChart:
    """The layer sweep: how well each layer's direction tells texts apart (AUC) and how well its reading predicts what prompts
    do (rank correlation). scan: a `Scan` or its table (direction.json's `table`)."""
    table = scan if isinstance(scan, pd.DataFrame) else pd.DataFrame(scan["table"]) if isinstance(scan, Mapping) else scan.table
    frame = _filled(table, "this sweep has no layer")[["layer", "method", "auc", "predicts"]]
    long = frame.melt(["layer", "method"], var_name="measure", value_name="value").dropna()
    names = {"auc": "tells texts apart (AUC)", "predicts": "predicts prompts' effects"}
    long = long.assign(measure=long["measure"].map(names), method=[_text(str(m).replace("_", " ")) for m in long["method"]])
    base = alt.Chart(long).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=None),
        color=alt.Color("method:N", scale=alt.Scale(range=[BLUE, ORANGE, GREEN, PURPLE, GREY]), title=None),
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("measure:N", title=None, sort=list(names.values())))
    points = base.mark_point(filled=True, size=40).encode(shape=alt.Shape("method:N", title=None), tooltip=["layer", "method", "measure", "value"])
    return alt.layer(lines, points).properties(width=width, height=height)


def _forest_row(condition: Mapping[str, Any], baseline: str, unit: str) -> dict[str, Any] | None:
    difference = next((d for d in condition.get("differences", []) if d["to"] == baseline), None)
    key, ends, scale = ("log_odds", "log_odds_ci", 1.0) if unit == "log_odds" else ("value", "ci", 100.0)
    if condition["name"] == baseline or difference is None or difference.get(key) is None:
        return None
    low, high = (None if end is None else scale * end for end in difference[ends])
    shown = {"condition": _text(condition["name"]), "prompt": _text(condition.get("prompt") or "")}
    shown |= {"kind": condition["kind"], "group": _TITLES[group_of(condition["kind"])]}
    return shown | {"change": scale * difference[key], "low": low, "high": high}


def _each_run(runs: Any) -> pd.DataFrame:
    """A row a run and condition that changed something by its words or its steering: constants' log-odds are arbitrary. Numbered conditions of
    one kind (random directions) have one name."""
    table = runs if isinstance(runs, pd.DataFrame) else runs.results if hasattr(runs, "results") else runs.table
    frame = table[table["shift"].notna() & ~table["kind"].isin(["none", "constant_answer"])] if len(table) else table
    frame = _filled(frame, "no condition of these runs has a difference to the baseline")
    shown = [label(kind if ":" in name else re.sub(r" \d+$", "", name)) for kind, name in zip(frame["kind"], frame["condition"])]
    columns = ["persona", "sign", "kind", "shift", "cross_entropy", *COSTS]
    groups = [_TITLES[group_of(kind)] for kind in frame["kind"]]
    prompts = [_text(text if isinstance(text, str) else "") for text in frame["prompt"]]
    named = frame[columns].assign(shown=[_text(name) for name in shown], group=groups, prompt=prompts)
    return named.sort_values("kind", key=lambda kinds: kinds.map(group_index), kind="stable")


def _by_group(channel: str, frame: pd.DataFrame) -> Any:
    """Colour or shape by group, the same in every chart whichever groups occur."""
    titles, values = groups_of(frame["kind"]), _COLOURS if channel == "color" else _SHAPES
    scale = alt.Scale(domain=list(titles.values()), range=[values[key] for key in titles])
    kind = alt.Color if channel == "color" else alt.Shape
    return kind("group:N", scale=scale, title=None, legend=alt.Legend(orient="bottom", columns=2, labelLimit=300))


def _filled(frame: pd.DataFrame, otherwise: str) -> pd.DataFrame:
    if frame.empty:
        raise UserError(f"nothing to draw: {otherwise}")
    return frame


def _text(value: str, limit: int = 200) -> str:
    return shorten(visible(str(value), spaces=False), limit)
