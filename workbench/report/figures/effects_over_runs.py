"""Charts over several runs: each condition's effect over seeds, and effects against cross-entropy or cost."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from workbench.budget import COSTS
from workbench.comparison.compare_runs import independent_runs
from workbench.errors import UserError
from workbench.plots.palette import CATEGORIES, GREY
from workbench.report.figures.chart_style import TITLES, alt, by_group, filled, plain_text
from workbench.report.verdict import group_index, group_of, label
from workbench.statistics import over_seeds


def seeds(runs: Any, width: int = 260) -> alt.FacetChart:
    """Draw the effects of conditions in several runs that differ in their seed.

    Conditions are prompts, steering and other interventions; an effect is the change of the persona's mean
    log-odds against no prompt. Each condition has a tick for each run, and the mean with a t interval over
    runs. There is one panel per persona and sign (less or more of the persona).

    Args:
        runs: A `RunsTable`, a `SweepResult`, or the table of either (results.parquet).
        width: Width of one panel in pixels.
    """
    frame = changes_of_runs(runs)
    keys = ["persona", "sign", "shown"]
    draws = {key: list(independent_runs(part)["shift"]) for key, part in frame.groupby(keys)}
    spread = {key: over_seeds(part) if len(part) > 1 else None for key, part in draws.items()}
    means = [sum(draws[key]) / len(draws[key]) for key in frame[keys].itertuples(index=False, name=None)]
    found = [spread[key] for key in frame[keys].itertuples(index=False, name=None)]
    frame = frame.assign(
        mean=means, low=[s and s.interval.low for s in found], high=[s and s.interval.high for s in found]
    )
    order = list(dict.fromkeys(frame["shown"]))
    base = alt.Chart().encode(
        y=alt.Y("shown:N", sort=order, title=None, axis=alt.Axis(labelLimit=240)),
        color=by_group("color", frame),
        tooltip=["shown", "prompt", "shift", "mean", "low", "high"],
    )
    title = "change of the mean log-odds"
    runs_ticks = base.mark_tick(thickness=1, size=12, opacity=0.7).encode(x=alt.X("shift:Q", title=title))
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        x="mean:Q", shape=by_group("shape", frame)
    )
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color=GREY).encode(x=alt.datum(0.0))
    panel = alt.layer(zero, runs_ticks, bars, marks).properties(width=width, height=16 * len(order))
    return panel.facet(
        row=alt.Row("persona:N", title=None), column=alt.Column("sign:N", title=None), data=frame
    )


def against(runs: Any, what: str = "cross_entropy", width: int = 260, height: int = 180) -> alt.FacetChart:
    """Draw the effects of conditions against the fluency of their prompts or the cost of their searches.

    Conditions are prompts and other interventions; an effect is the change of the persona's mean log-odds
    against no prompt. There is one point per run and condition, and one panel per persona and sign (less or
    more of the persona). Conditions without fluency or cost are left out: steering has no prompt, and a
    prompt written by a person has no search.

    Args:
        runs: A `RunsTable`, a `SweepResult`, or the table of either (results.parquet).
        what: Horizontal axis: "cross_entropy" of the prompt in nats per token, or a search cost on a
            logarithmic scale: "model_calls", "token_layers", "flops" or "seconds".
        width: Width of one panel in pixels.
        height: Height of one panel in pixels.
    """
    titles = {"cross_entropy": "cross-entropy, nats per token (left: more fluent)"} | {
        name: f"{name.replace('_', ' ')} spent" for name in COSTS
    }
    if what not in titles:
        raise UserError(f"unknown quantity {what!r}: expected one of {', '.join(titles)}")
    frame = changes_of_runs(runs)
    has = frame[what].notna() & (frame[what].astype(float) > 0)
    frame = filled(frame.loc[has], f"no condition of these runs has a figure for {what}")
    scale = alt.Scale(zero=False) if what == "cross_entropy" else alt.Scale(type="log", nice=False)
    kinds = list(dict.fromkeys(frame["shown"]))
    colours = alt.Scale(domain=kinds, range=list(CATEGORIES))
    legend = alt.Legend(orient="bottom", columns=3, labelLimit=260)
    base = alt.Chart().encode(
        x=alt.X(f"{what}:Q", title=titles[what], scale=scale),
        y=alt.Y("shift:Q", title="change of the mean log-odds"),
        color=alt.Color("shown:N", scale=colours, title=None, legend=legend),
        shape=alt.Shape("shown:N", scale=alt.Scale(domain=kinds), title=None),
        tooltip=["shown", "prompt", "shift", what],
    )
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color=GREY).encode(y=alt.datum(0.0))
    panel = alt.layer(zero, base.mark_point(filled=True, size=50, opacity=0.8)).properties(
        width=width, height=height
    )
    return panel.facet(
        row=alt.Row("persona:N", title=None), column=alt.Column("sign:N", title=None), data=frame
    )


def changes_of_runs(runs: Any) -> pd.DataFrame:
    """Return a table with one row per run and condition that has an effect, for the charts over runs.

    Conditions are prompts, steering and other interventions. No prompt is left out, because it is the
    baseline, and so is a model that always gives the same answer, because its log-odds are arbitrary. Random
    directions, which differ only in their number, get the same name.

    Args:
        runs: A `RunsTable`, a `SweepResult`, or the table of either (results.parquet).
    """
    table = (
        runs if isinstance(runs, pd.DataFrame) else runs.results if hasattr(runs, "results") else runs.table
    )
    frame = (
        table.loc[table["shift"].notna() & ~table["kind"].isin(["none", "constant_answer"])]
        if len(table)
        else table
    )
    frame = filled(frame, "no condition of these runs has a difference to the baseline")
    shown = [
        label(kind if ":" in name else re.sub(r" \d+$", "", name))
        for kind, name in zip(frame["kind"], frame["condition"])
    ]
    columns = ["persona", "sign", "kind", "shift", "cross_entropy", *COSTS]
    groups = [TITLES[group_of(kind)] for kind in frame["kind"]]
    prompts = [plain_text(text if isinstance(text, str) else "") for text in frame["prompt"]]
    named = frame[columns].assign(shown=[plain_text(name) for name in shown], group=groups, prompt=prompts)
    return named.sort_values("kind", key=lambda kinds: kinds.map(group_index), kind="stable")
