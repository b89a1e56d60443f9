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
    """Return the Altair encoding that colours or shapes a chart's marks by group of condition.

    Conditions are what a study compares, such as found prompts, written prompts and steering. Their groups
    have the same colours and shapes in every chart.

    Args:
        channel: "color" or "shape".
        frame: The chart's table, with the columns `kind` (of the condition) and `group`.
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
    """Return a chart's table unchanged, after a check that it can be drawn.

    Args:
        frame: The table, one row per mark.
        otherwise: End of the error message if the table is empty: the reason why there is nothing to draw.

    Raises:
        UserError: The table is empty or has more than MOST_MARKS rows.
    """
    if frame.empty:
        raise UserError(f"nothing to draw: {otherwise}")
    if len(frame) > MOST_MARKS:
        raise UserError(f"too much to draw: expected at most {MOST_MARKS:,} marks, found {len(frame):,}")
    return frame


def shown_name(name: str) -> str:
    """Return the display name of a condition (a prompt or intervention that a study compares).

    Args:
        name: Name of the condition in the run's files.
    """
    return condition_label(str(name))


def plain_text(value: str, limit: int = 200) -> str:
    """Convert a text to a label of a chart: make invisible characters visible and shorten it.

    Args:
        value: The text, such as a prompt of a run.
        limit: Largest number of characters.
    """
    return shorten(visible(str(value), spaces=False), limit)
