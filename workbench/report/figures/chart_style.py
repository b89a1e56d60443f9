"""What all charts share: colours and shapes by group, labels as plain text."""

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

#: Of one chart (altair's own limit).
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
    """Colour or shape by group, the same in every chart whichever groups occur."""
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
    """The table; UserError that says why where there is nothing to draw, or more than a picture can hold."""
    if frame.empty:
        raise UserError(f"nothing to draw: {otherwise}")
    if len(frame) > MOST_MARKS:
        raise UserError(f"too much to draw: expected at most {MOST_MARKS:,} marks, found {len(frame):,}")
    return frame


def shown_name(name: str) -> str:
    """A condition's name as every page and table has it."""
    return condition_label(str(name))


def plain_text(value: str, limit: int = 200) -> str:
    """A text of a run as a label: invisible characters made visible, shortened."""
    return shorten(visible(str(value), spaces=False), limit)
