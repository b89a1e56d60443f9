"""Charts in print style: exact total width, small type, no cut labels, PDF with embedded fonts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.optional_packages import needs_extra

with needs_extra("notebook", "drawing figures"):
    import vl_convert

FORMATS = ("pdf", "svg", "png")
#: Number of points in one unit, by the unit's name in `--width`.
UNITS = {"in": 72.0, "cm": 72.0 / 2.54, "mm": 7.2 / 2.54, "pt": 1.0}
#: Resolution of PNG files in dots per inch.
PPI = 300
#: Height in print as a fraction of the height on a screen, where type is larger.
HEIGHT = 0.55
#: Smallest width of a heatmap's cell, in points, in which the effect is written.
NARROWEST_CELL = 26
FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"


def points_of(width: str) -> float:
    """Convert the width of a figure, such as "3.3in", to points (1/72 inch).

    Args:
        width: A number with the unit in, cm, mm or pt.

    Raises:
        UserError: The width is not of this form, or not from 3.3 to 20 inches.

    Example:
        >>> round(points_of("3.3in"), 1), round(points_of("8.4cm"), 1)
        (237.6, 238.1)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(in|cm|mm|pt)\s*", width)
    points = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 237 <= points <= 1440:  # narrower figures have no room for their labels
        raise UserError(
            f"expected a width from 3.3 to 20 inches, as 3.3in, 8.4cm, 84mm or 238pt, found {width!r}"
        )
    return points


def formats_of(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of file formats, such as "pdf,svg", and check each.

    Args:
        text: Names of formats, separated by commas; each must be one of FORMATS.

    Raises:
        UserError: A format is unknown, or there is none.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UserError(
            f"unknown figure format {(unknown or ['nothing'])[0]!r}: expected {', '.join(FORMATS)}"
        )
    return names


def printed(chart: Any, title: str, width: float, transparent: bool = False) -> dict[str, Any]:
    """Convert a chart to a Vega-Lite specification in print style.

    Args:
        chart: The chart.
        title: Title above the chart.
        width: Width of the whole figure in points.
        transparent: Whether to leave out the white background.
    """
    spec = _restyled(chart.to_dict(), width)
    spec |= {
        "width": width,
        "height": max(60, HEIGHT * spec.get("height", 200)),
        "autosize": {"type": "fit-x", "contains": "padding"},
    }
    spec["title"] = {
        "text": title,
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 8,
        "fontWeight": 600,
        "offset": 6,
    }
    axis = {"labelFontSize": 7, "titleFontSize": 7.5, "titleFontWeight": 400, "labelLimit": 0.45 * width}
    axis |= {"gridColor": "#e4e4e4", "domainColor": "#555"}
    legend = {
        "labelFontSize": 6.5,
        "titleFontSize": 7.5,
        "symbolSize": 40,
        "labelLimit": width - 30,
        "rowPadding": 1,
    }
    legend |= {
        "orient": "bottom",
        "columns": 1,
        "gradientLength": 0.5 * width,
        "layout": {"bottom": {"anchor": "start", "bounds": "full", "direction": "vertical"}},
    }
    spec["config"] = {
        "background": None if transparent else "#ffffff",
        "font": FONT,
        "padding": 2,
        "axis": axis,
        "legend": legend,
        "view": {"stroke": "#999", "strokeWidth": 0.5},
    }
    return spec


def save_printed(spec: dict[str, Any], target: Path) -> Path:
    """Save a Vega-Lite specification as a .pdf, .svg or .png file.

    Args:
        spec: The specification.
        target: The file.

    Raises:
        UserError: The file cannot be written.
    """
    kind = target.suffix.removeprefix(".")
    try:
        if kind == "svg":
            target.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        elif kind == "pdf":
            target.write_bytes(vl_convert.vegalite_to_pdf(spec))
        else:
            target.write_bytes(vl_convert.vegalite_to_png(spec, ppi=PPI))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _restyled(node: Any, width: float) -> Any:
    """Move legends below the chart, make marks and texts smaller, drop texts that do not fit in cells."""
    if isinstance(node, list):
        return [_restyled(entry, width) for entry in node]
    if not isinstance(node, dict):
        return node
    found = {key: _restyled(value, width) for key, value in node.items() if key != "datasets"} | {
        k: v for k, v in node.items() if k == "datasets"
    }
    if isinstance(found.get("legend"), dict):
        found["legend"] = {
            key: value
            for key, value in found["legend"].items()
            if key not in ("labelLimit", "columns", "orient")
        }
    if isinstance(found.get("axis"), dict):
        found["axis"] = {key: value for key, value in found["axis"].items() if key != "labelLimit"}
        if found["axis"].get("labelAngle"):  # a slanted label of the last column would leave the figure
            found["axis"]["labelAngle"] = -90
    mark = found.get("mark")
    if isinstance(mark, dict):
        smaller = {
            "point": {"size": 34, "strokeWidth": 1.2},
            "text": {"fontSize": 6},
            "line": {"strokeWidth": 1.2},
            "rule": {"strokeWidth": 1.2},
        }
        found["mark"] = mark | smaller.get(str(mark.get("type")), {})
    if isinstance(found.get("layer"), list):
        columns = len(_sort_of(found["layer"]) or [])
        roomy = not columns or 0.6 * width / columns >= NARROWEST_CELL
        found["layer"] = [
            layer for layer in found["layer"] if roomy or layer.get("mark", {}).get("type") != "text"
        ]
    return found


def _sort_of(layers: list[dict[str, Any]]) -> list[str] | None:
    """Return a heatmap's columns, from the x axis of the first layer with text; None for other charts."""
    for layer in layers:
        if layer.get("mark", {}).get("type") == "text":
            found = layer.get("encoding", {}).get("x", {}).get("sort")
            return found if isinstance(found, list) else None
    return None
