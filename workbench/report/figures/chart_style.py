"""Shared style of all charts: colours and shapes by group of condition, labels as plain text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.conditions import GROUPS, condition_label
from workbench.errors import UserError
from workbench.html_text import shorten, visible
from workbench.optional_packages import needs_extra
from workbench.plots.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE
from workbench.report.verdict import UNKNOWN, group_of, groups_of

with needs_extra("notebook", "drawing figures"):
    import altair as alt

#: Largest number of marks in one chart (altair's own limit).
MOST_MARKS = 5_000
SHAPES = {
    "found": "circle",
    "answer": "diamond",
    "written": "square",
    "inside": "triangle-up",
    "control": "cross",
    "other": "stroke",
}
COLOURS = {
    "found": BLUE,
    "answer": PURPLE,
    "written": ORANGE,
    "inside": GREEN,
    "control": GREY,
    "other": BLACK,
}
TITLES = GROUPS | dict([UNKNOWN])


def by_group(channel: str, frame: pd.DataFrame) -> Any:
    """Return Altair's encoding of colour or shape by group of condition, which is the same in every chart.

    Args:
        channel: "color" or "shape".
        frame: The chart's table, with a column `kind`.
    """
    there = {group_of(word) for word in frame["kind"]}
    titles, values = groups_of(frame["kind"]), COLOURS if channel == "color" else SHAPES
    scale = alt.Scale(domain=list(titles.values()), range=[values[key] for key in titles])
    shown = [title for key, title in titles.items() if key in there]
    kind = alt.Color if channel == "color" else alt.Shape
    return kind(
        "group:N",
        scale=scale,
        title=None,
        legend=alt.Legend(orient="bottom", columns=2, labelLimit=300, values=shown),
    )


def filled(frame: pd.DataFrame, otherwise: str) -> pd.DataFrame:
    """Return the table if it can be drawn.

    Args:
        frame: The table.
        otherwise: Reason for the error message if the table is empty.

    Raises:
        UserError: The table is empty or has more than MOST_MARKS rows.
    """
    if frame.empty:
        raise UserError(f"nothing to draw: {otherwise}")
    if len(frame) > MOST_MARKS:
        raise UserError(f"too much to draw: expected at most {MOST_MARKS:,} marks, found {len(frame):,}")
    return frame


def shown_name(name: str) -> str:
    """Return a condition's name as all pages and tables display it."""
    return condition_label(str(name))


def plain_text(value: str, limit: int = 200) -> str:
    """Convert a text of a run to a label: invisible characters made visible, at most `limit` characters."""
    return shorten(visible(str(value), spaces=False), limit)
