"""Forest plot of one comparison: the effect of each condition with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.errors import UserError
from workbench.plots.palette import GREY
from workbench.report.figures.chart_style import TITLES, alt, by_group, filled, plain_text, shown_name
from workbench.report.verdict import group_index, group_of


def forest(comparison: Any, unit: str = "log_odds", width: int = 420) -> alt.LayerChart | alt.FacetChart:
    """Draw how much each condition changes the persona compared with no prompt, with 95 % intervals.

    Conditions are prompts, steering and other interventions. Left of zero is less of the persona.

    Args:
        comparison: A `Comparison` or the contents of comparison.json.
        unit: "log_odds" of the answer that shows the persona, or "points" for percentage points of the rate
            of that answer.
        width: Width of the plot in pixels.
    """
    if unit not in ("log_odds", "points"):
        raise UserError(f"unknown unit {unit!r}: expected 'log_odds' or 'points'")
    content = comparison if isinstance(comparison, Mapping) else comparison.to_json()
    rows = [_forest_row(c, content.get("baseline", "no prompt"), unit) for c in content.get("conditions", [])]
    frame = filled(
        pd.DataFrame([row for row in rows if row]),
        "no condition of this comparison has a difference to the baseline",
    )
    title = "change of the mean log-odds" if unit == "log_odds" else "change of the rate, percentage points"
    frame = frame.sort_values("kind", key=lambda kinds: kinds.map(group_index), kind="stable")
    order = list(frame["condition"])
    y = alt.Y("condition:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    shared = alt.Chart(frame).encode(
        y=y, color=by_group("color", frame), tooltip=["condition", "prompt", "change", "low", "high"]
    )
    bars = shared.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    marks = shared.mark_point(filled=True, size=90, opacity=1).encode(
        x="change:Q", shape=by_group("shape", frame)
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="x:Q")
    return alt.layer(zero, bars, marks).properties(width=width, height=22 * len(frame))


def _forest_row(condition: Mapping[str, Any], baseline: str, unit: str) -> dict[str, Any] | None:
    difference = next((d for d in condition.get("differences", []) if d["to"] == baseline), None)
    key, ends, scale = ("log_odds", "log_odds_ci", 1.0) if unit == "log_odds" else ("value", "ci", 100.0)
    if condition["name"] == baseline or difference is None or difference.get(key) is None:
        return None
    low, high = (None if end is None else scale * end for end in difference[ends])
    shown = {
        "condition": plain_text(shown_name(condition["name"])),
        "prompt": plain_text(condition.get("prompt") or ""),
    }
    shown |= {"kind": condition["kind"], "group": TITLES[group_of(condition["kind"])]}
    return shown | {"change": scale * difference[key], "low": low, "high": high}
