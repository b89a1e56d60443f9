"""Chart of dose-response curves: the prompt's first k tokens, and steering along the direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.plots.palette import BLUE, GREY, ORANGE
from workbench.report.figures.chart_style import alt, filled

NAMES = {"prompt": "the prompt's first tokens", "steering": "steering along the direction"}


def dose(entries: Sequence[Any], width: int = 420, height: int = 260) -> alt.LayerChart | alt.FacetChart:
    """Draw dose-response curves of a prompt and of steering.

    The change of the answer's log-odds is drawn against the change of the projection on a direction.

    One curve is for growing parts of the prompt (its first 1, 2, ... tokens), the other for steering along
    the direction. Both have 95 % intervals.

    Args:
        entries: The `dose` entries of attribution.json, or `DoseResponse`s.
        width: Width of the plot in pixels.
        height: Height of the plot in pixels.
    """
    rows = [entry if isinstance(entry, dict) else entry.to_entry().model_dump() for entry in entries]
    frame = filled(pd.DataFrame(rows), "this run has no doses")
    frame = frame.assign(kind=[NAMES.get(kind, kind) for kind in frame["kind"]])[
        ["kind", "amount", "moved", "answer", "low", "high"]
    ]
    domain = list(NAMES.values())
    x, y = (
        alt.X("moved:Q", title="change of the direction's reading"),
        alt.Y("answer:Q", title="change of the log-odds"),
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=domain, range=[ORANGE, BLUE]),
        title=None,
        legend=alt.Legend(orient="bottom", symbolStrokeWidth=0),
    )
    base = alt.Chart(frame).encode(x=x, y=y, color=colour)
    dashes = alt.StrokeDash("kind:N", scale=alt.Scale(domain=domain, range=[[1, 0], [6, 3]]), title=None)
    lines = base.mark_line().encode(order="amount:Q", strokeDash=dashes)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=domain, range=["circle", "square"]), title=None)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=shape, tooltip=["kind", "amount", "moved", "answer"]
    )
    bars = base.mark_rule().encode(y="low:Q", y2="high:Q")
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(y="y:Q")
    return alt.layer(zero, lines, bars, points).properties(width=width, height=height)
