"""Chart of mediation: the prompt's whole effect, and the part through each direction or group of latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.plots.palette import BLUE, GREY
from workbench.report.figures.chart_style import alt, filled, plain_text


def mediation(entries: Sequence[Any], width: int = 420) -> alt.LayerChart | alt.FacetChart:
    """Draw how much of a prompt's effect goes through each mediator (a direction or latents).

    Broad bars are the whole effect on the answer's log-odds. Narrow bars are the part through the mediator,
    with its 95 % interval.

    Args:
        entries: The `mediation` entries of attribution.json, or `MediationResult`s.
        width: Width of the plot in pixels.
    """
    rows = [entry if isinstance(entry, dict) else entry.to_entry().model_dump() for entry in entries]
    frame = filled(
        pd.DataFrame([row for row in rows if row.get("mediated") is not None]), "this run has no mediation"
    )
    frame = frame.assign(target=[plain_text(name, 60) for name in frame["target"]])[
        ["target", "total", "mediated", "mediated_low", "mediated_high"]
    ]
    long = pd.concat(
        [
            frame.assign(part="whole effect", change=frame["total"]),
            frame.assign(part="through it", change=frame["mediated"]),
        ]
    )
    parts = alt.Scale(domain=["whole effect", "through it"], range=["#c9c9c9", BLUE])
    base = alt.Chart(long).encode(y=alt.Y("target:N", sort=list(frame["target"]), title=None))
    colour = alt.Color("part:N", scale=parts, title=None, legend=alt.Legend(orient="bottom"))
    shared = {"x": alt.X("change:Q", title="change of the log-odds"), "color": colour}
    whole = (
        base.transform_filter("datum.part == 'whole effect'").mark_bar(height={"band": 0.8}).encode(**shared)
    )
    through = (
        base.transform_filter("datum.part == 'through it'").mark_bar(height={"band": 0.4}).encode(**shared)
    )
    ends = (
        alt.Chart(frame)
        .mark_rule(color="black")
        .encode(y=alt.Y("target:N", sort=list(frame["target"])), x="mediated_low:Q", x2="mediated_high:Q")
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="x:Q")
    return alt.layer(whole, through, ends, zero).properties(width=width, height=26 * len(frame))
