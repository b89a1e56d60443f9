"""Chart of the scan over layers: how well each layer's direction separates texts and predicts effects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

import pandas as pd

from workbench.plots.palette import BLUE, GREEN, GREY, ORANGE, PURPLE
from workbench.report.figures.chart_style import alt, filled, plain_text

SHAPES = ["circle", "square", "triangle-up", "cross", "diamond"]


def layers(scan: Any, width: int = 420, height: int = 240) -> alt.LayerChart | alt.FacetChart:
    """Draw how good the persona's direction at each layer is, by two measures.

    The measures are how well the direction separates texts that show the persona from others (AUC), and how
    well the projection on it predicts the effects of prompts (rank correlation).

    Args:
        scan: A `LayerScan`, its table, or the contents of direction.json.
        width: Width of the plot in pixels.
        height: Height of the plot in pixels.
    """
    table = (
        scan
        if isinstance(scan, pd.DataFrame)
        else pd.DataFrame(scan["table"])
        if isinstance(scan, Mapping)
        else scan.table
    )
    frame = filled(table, "this sweep has no layer")[["layer", "method", "auc", "predicts"]]
    long = frame.melt(["layer", "method"], var_name="measure", value_name="value").dropna()
    names = {"auc": "distinguishes texts (AUC)", "predicts": "predicts prompts' effects"}
    long = long.assign(
        measure=[names[str(m)] for m in long["measure"]],
        method=[plain_text(str(m).replace("_", " ")) for m in long["method"]],
    )
    methods = list(dict.fromkeys(long["method"]))
    base = alt.Chart(long).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=None),
        color=alt.Color(
            "method:N",
            scale=alt.Scale(
                domain=methods, range=_repeated([BLUE, ORANGE, GREEN, PURPLE, GREY], len(methods))
            ),
            title="method",
        ),
    )
    dashes = alt.StrokeDash("measure:N", title=None, sort=list(names.values()))
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=dashes)
    shapes = alt.Shape(
        "method:N", scale=alt.Scale(domain=methods, range=_repeated(SHAPES, len(methods))), title="method"
    )  # one legend with colour
    points = base.mark_point(filled=True, size=40).encode(
        shape=shapes, tooltip=["layer", "method", "measure", "value"]
    )
    return alt.layer(lines, points).properties(width=width, height=height)


def _repeated(values: list[str], n: int) -> list[str]:
    """Return the first n values of an endless repetition of the list."""
    return list(islice(cycle(values), n))
