"""Chart of one search's frontier: objective against cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.plots.palette import BLUE
from workbench.report.figures.chart_style import alt, filled, plain_text


def frontier(found: Any, width: int = 420, height: int = 300) -> alt.LayerChart | alt.FacetChart:
    """Draw the objective against the cross-entropy of the prompts that a search found.

    A lower cross-entropy (left) is more fluent. The chosen prompt has a ring.

    Args:
        found: A `Frontier`, or one search of search/frontier.json.
        width: Width of the plot in pixels.
        height: Height of the plot in pixels.
    """
    candidates = (found if isinstance(found, Mapping) else found.to_file().model_dump(mode="json"))[
        "candidates"
    ]
    rows = [
        {
            "prompt": plain_text(c["text"]),
            "objective": c["objective"],
            "cross_entropy": c["fluency"],
            "chosen": bool(c.get("chosen")),
        }
        for c in candidates
    ]
    frame = filled(pd.DataFrame(rows), "this search kept no prompt").sort_values("cross_entropy")
    base = alt.Chart(frame).encode(
        x=alt.X(
            "cross_entropy:Q",
            title="cross-entropy, nats per token (left: more fluent)",
            scale=alt.Scale(zero=False),
        ),
        y=alt.Y("objective:Q", title="objective", scale=alt.Scale(zero=False)),
    )
    line = base.mark_line(interpolate="step-after", color=BLUE, opacity=0.4)
    points = base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(
        tooltip=["prompt", "objective", "cross_entropy"]
    )
    ring = base.transform_filter("datum.chosen").mark_point(size=260, color="black", strokeWidth=1.6)
    return alt.layer(line, points, ring).properties(width=width, height=height)
