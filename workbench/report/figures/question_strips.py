"""Chart of every test question under every condition: one tick per question."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pandas as pd

from workbench.plots.palette import GREY
from workbench.report.figures.chart_style import (
    MOST_MARKS,
    TITLES,
    alt,
    by_group,
    filled,
    plain_text,
    shown_name,
)
from workbench.report.verdict import group_index, group_of


def questions(answers: Any, width: int = 420) -> alt.LayerChart | alt.FacetChart:
    """Draw the log-odds of the persona's answer for every test question under every condition.

    Conditions are no prompt, found and written prompts, steering and others. There is one tick per question,
    the mean over both orders of its options. If there are more than MOST_MARKS ticks, fewer questions are
    drawn: the same ones under every condition, evenly spread over their log-odds. The axis then says how
    many. A model that always gives the same answer is left out, because its log-odds are arbitrary.

    Args:
        answers: A `Comparison`, or the rows of evaluation.parquet.
        width: Width of the plot in pixels.
    """
    rows = answers if isinstance(answers, pd.DataFrame) else answers.rows
    kept = rows.loc[rows["kind"] != "constant_answer"]
    frame = kept.groupby(["condition", "kind", "item"], sort=False)[["log_odds"]].mean().reset_index()
    frame, shown = _thinned(frame.loc[frame["log_odds"].notna()])
    frame = filled(frame, "no answer to a single question")
    names = [plain_text(shown_name(name)) for name in frame["condition"]]
    frame = frame.assign(group=[TITLES[group_of(kind)] for kind in frame["kind"]], condition=names)
    frame = frame.sort_values("kind", key=lambda kinds: kinds.map(group_index), kind="stable")
    order = list(dict.fromkeys(frame["condition"]))
    base = alt.Chart(frame).encode(
        y=alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(labelLimit=260)),
        color=by_group("color", frame),
    )
    ticks = base.mark_tick(thickness=1, opacity=0.5).encode(x=alt.X("log_odds:Q", title=shown))
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="x:Q")
    return alt.layer(zero, ticks).properties(width=width, height=18 * len(order))


def _thinned(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return at most MOST_MARKS rows, and the title of their axis."""
    found: dict[str, list[float]] = {}
    for item, value in zip(frame["item"], frame["log_odds"], strict=True):
        found.setdefault(item, []).append(float(value))
    most = max(1, MOST_MARKS // max(1, len(set(frame["condition"]))))
    if len(found) <= most:
        return frame, "log-odds of a question"
    ordered = sorted(found, key=lambda item: fmean(found[item]))
    kept = {ordered[round(i * (len(ordered) - 1) / max(1, most - 1))] for i in range(most)}
    return frame.loc[
        [item in kept for item in frame["item"]]
    ], f"log-odds of a question ({most:,} of {len(ordered):,} shown)"
