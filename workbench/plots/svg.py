"""Pictures as self-contained SVG text: no script, no style sheet, nothing loaded.

A picture is the same in a notebook, a report and a file. Text and lines take the colour of the page around
them (boxes its background, if the page gives the class `paper` a fill). Plus is orange with a solid line,
minus is blue and dashed, in mid tones that are visible on light and dark backgrounds. Every text is escaped.
"""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.html_text import escape, shorten, visible
from workbench.plots.palette import MINUS, PLUS

BOX, ROW, SIDE = 70, 74, 92
#: Edges with a smaller fraction of the effect on the node where they end are not drawn.
LEAST_SHARE = 0.04


@dataclass
class _Graph:
    """Boxes by id (centre, text lines, effect) and rows of a circuit's graph, in drawing order."""

    boxes: dict[str, tuple[float, float, list[str], float | None, str]] = field(default_factory=dict)
    rows: list[tuple[float, str]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def circuit_svg(entry: Mapping[str, Any]) -> str:
    """Draw the graph of a circuit as SVG.

    Tokens are at the bottom, layers above them, and latents, direction and answer on top. The width of a line
    is its fraction of the effect on the node where it ends. Missing parts are left out.

    Args:
        entry: The circuit as `Circuit.to_json` returns it or as attribution.json stores it.
    """
    graph = _laid_out(entry)
    lines = [
        _edge(graph, edge)
        for edge in entry.get("edges", [])
        if edge.get("source") in graph.boxes and edge.get("target") in graph.boxes
    ]
    drawn = [line for line in lines if line]
    boxes = [_box(*box, key) for key, box in graph.boxes.items()]
    rows = [
        f'<text x="4" y="{y + 4:.0f}" font-size="12" fill="currentColor" opacity="0.7">{escape(name)}</text>'
        for y, name in graph.rows
    ]
    label = f"Circuit of {len(entry.get('nodes', []))} heads and MLPs with {len(drawn)} edges; the same figures are in the table"
    size = f'viewBox="0 0 {graph.width:.0f} {graph.height:.0f}" width="{graph.width:.0f}" height="{graph.height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}" font-family="system-ui,sans-serif">'
        f"{''.join(drawn)}{''.join(rows)}{''.join(boxes)}</svg>"
    )


def _laid_out(entry: Mapping[str, Any]) -> _Graph:
    """Arrange the graph: columns are positions of the text, rows are layers (heads below their MLP)."""
    tokens = [str(token) for token in entry.get("tokens", [])]
    nodes = [node for node in entry.get("nodes", []) if isinstance(node.get("layer"), int)]
    targets = list(entry.get("targets", []))
    levels = sorted({(node["layer"], node.get("head") is None) for node in nodes})
    kinds = [
        kind for kind in ("latent", "direction", "answer") if any(t.get("kind") == kind for t in targets)
    ]
    graph = _Graph(height=ROW * (len(levels) + len(kinds) + 1) + 12)
    columns = _columns(len(tokens), nodes)
    graph.width = (
        max(
            columns[-1][1],
            SIDE
            + BOX * 1.25 * max((sum(t.get("kind") == kind for t in targets) for kind in kinds), default=1),
        )
        + 8
    )
    floor = graph.height - ROW / 2
    for place, token in enumerate(tokens):
        graph.boxes[f"token:{place}"] = (
            sum(columns[place]) / 2,
            floor,
            [shorten(visible(token), 9)],
            None,
            f"token {place + 1}: {visible(token)}",
        )
    for place, name in ((len(tokens), "question"), (len(tokens) + 1, "decision")):
        graph.boxes[f"place:{name}"] = (
            sum(columns[place]) / 2,
            floor,
            [name],
            None,
            f"the {name}{' token' if name == 'decision' else ''}",
        )
    graph.rows.append((floor, "text"))
    for level, (layer, mlp) in enumerate(levels):
        y = floor - ROW * (level + 1)
        graph.rows.append((y, f"layer {layer} {'MLPs' if mlp else 'heads'}"))
        _place_row(
            graph,
            [n for n in nodes if (n["layer"], n.get("head") is None) == (layer, mlp)],
            columns,
            len(tokens),
            y,
        )
    for level, kind in enumerate(kinds):
        members, y = [t for t in targets if t.get("kind") == kind], floor - ROW * (len(levels) + level + 1)
        graph.rows.append((y, {"latent": "latents", "direction": "direction", "answer": "answer"}[kind]))
        step = (graph.width - SIDE) / len(members)
        for i, target in enumerate(members):
            short = str(target["name"]).removeprefix("latent ")
            lines = [shorten(visible(short, spaces=False), 16), _signed(target.get("change"))]
            graph.boxes[str(target["id"])] = (
                SIDE + step * (i + 0.5),
                y,
                lines,
                target.get("change"),
                f"{target['name']}: changes by {lines[1]}",
            )
    return graph


def _columns(n_tokens: int, nodes: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return the left and right edge of each position's column, as wide as its fullest row."""
    edges, left = [], float(SIDE)
    for place in [*range(n_tokens), -2, -1]:
        rows: dict[Any, int] = {}
        for node in nodes:
            if node.get("place") == place:
                level = (node["layer"], node.get("head") is None)
                rows[level] = rows.get(level, 0) + 1
        right = left + (BOX + 8) * max(rows.values(), default=1)
        edges.append((left, right))
        left = right
    return edges


def _place_row(
    graph: _Graph,
    nodes: Sequence[Mapping[str, Any]],
    columns: list[tuple[float, float]],
    n_tokens: int,
    y: float,
) -> None:
    for place in dict.fromkeys(node.get("place") for node in nodes):
        members = [node for node in nodes if node.get("place") == place]
        column = n_tokens + 2 + place if isinstance(place, int) and place < 0 else place
        if not isinstance(column, int) or not 0 <= column < len(columns):
            continue
        left, right = columns[column]
        for i, node in enumerate(members):
            x = left + (right - left) * (i + 0.5) / len(members)
            name = "MLP" if node.get("head") is None else f"head {node['head']}"
            effect = node.get("exact")
            graph.boxes[str(node["id"])] = (
                x,
                y,
                [name, _signed(effect)],
                effect,
                f"{node.get('name')}: {_signed(effect)} log-odds, patched alone",
            )


def _box(x: float, y: float, lines: Sequence[str], effect: float | None, title: str, key: str) -> str:
    """Draw a rounded box with text; its fill and border show the sign. key: id by which a page finds it."""
    colour = "currentColor" if not effect else PLUS if effect > 0 else MINUS
    width = max(BOX - 6, 7.2 * max(len(line) for line in lines) + 10)
    height = 16 * len(lines) + 8
    paint = f'fill="{colour}" fill-opacity="{0.14 if effect else 0.06}" stroke="{colour}" stroke-opacity="{0.9 if effect else 0.4}"'
    texts = "".join(
        f'<text x="{x:.1f}" y="{y - height / 2 + 17 + 16 * i:.1f}" text-anchor="middle" font-size="12" fill="currentColor">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    place = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height}" rx="6"'
    return f'<g data-id="{escape(key)}"><title>{escape(title)}</title><rect {place} class="paper" fill="none"/><rect {place} {paint}/>{texts}</g>'


def _edge(graph: _Graph, edge: Mapping[str, Any]) -> str:
    share, effect = edge.get("share"), edge.get("effect")
    if (
        not isinstance(share, (int, float))
        or not isinstance(effect, (int, float))
        or abs(share) < LEAST_SHARE
    ):
        return ""
    (x1, y1, from_lines, *_), (x2, y2, to_lines, *_) = (
        graph.boxes[edge["source"]],
        graph.boxes[edge["target"]],
    )
    y1, y2 = y1 - 8 * len(from_lines) - 4, y2 + 8 * len(to_lines) + 4
    bend = max(24.0, abs(y1 - y2) * 0.45)
    colour, dash = (PLUS, "") if effect > 0 else (MINUS, ' stroke-dasharray="7 4"')
    path = f"M{x1:.1f},{y1:.1f}C{x1:.1f},{y1 - bend:.1f} {x2:.1f},{y2 + bend:.1f} {x2:.1f},{y2:.1f}"
    title = f"{graph.boxes[edge['source']][4]} → {graph.boxes[edge['target']][4]}; this way: {_signed(effect)} ({100 * share:.0f} %)".replace(
        "-", "−"
    )
    stroke = f'stroke="{colour}" stroke-width="{1 + 7 * min(1.0, abs(share)):.2f}" stroke-opacity="0.6"'
    ways = f'data-source="{escape(edge["source"])}" data-target="{escape(edge["target"])}" data-share="{abs(share):.4g}"'
    return f'<path {ways} d="{path}" fill="none" {stroke}{dash}><title>{escape(title)}</title></path>'


def _signed(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "–"
    return (
        f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2f}"
    ).replace("-", "−")


def histogram_svg(edges: Sequence[float], counts: Sequence[int], width: int = 260, height: int = 90) -> str:
    """Draw a histogram as SVG, on a square-root scale so that rare values are visible.

    Args:
        edges: Edges of the bars, one more than counts.
        counts: Count of each bar; without any count the result is "".
        width: Width in pixels.
        height: Height in pixels.
    """
    most = max(counts, default=0)
    if most == 0 or len(edges) != len(counts) + 1:
        return ""
    step, floor = (width - 8) / len(counts), height - 18
    bars = "".join(
        f'<rect x="{4 + step * i:.1f}" y="{floor - (floor - 6) * (n / most) ** 0.5:.1f}" width="{max(1.0, step - 1):.1f}" '
        f'height="{(floor - 6) * (n / most) ** 0.5:.1f}" fill="{MINUS}"><title>{edges[i]:.3g} to {edges[i + 1]:.3g}: {n:,} tokens</title></rect>'
        for i, n in enumerate(counts)
    )
    marks = "".join(
        f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}" font-size="12" fill="currentColor">{escape(f"{value:.3g}")}</text>'
        for x, anchor, value in ((4, "start", edges[0]), (width - 4, "end", edges[-1]))
    )
    label = f"Histogram of {sum(counts):,} activations between {edges[0]:.3g} and {edges[-1]:.3g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}" font-family="system-ui,sans-serif">{bars}{marks}</svg>'
    )


def dose_svg(doses: Sequence[Mapping[str, Any]], width: int = 460, height: int = 280) -> str:
    """Draw the change of the answer against the change of the projection on a direction (dose-response).

    Circles with a solid line are prompts that consist of the first tokens of the whole prompt. Squares with a
    dashed line are steering that changes the projection by fractions of the prompt's change. Both have
    intervals.

    Args:
        doses: Points as `Dose.to_json` returns them; without any the result is "".
        width: Width in pixels.
        height: Height in pixels.
    """
    if not doses:
        return ""
    ends = [
        float(d[key])
        for d in doses
        for key in ("answer", "low", "high")
        if isinstance(d.get(key), (int, float))
    ]
    across, up = _ticks([0.0, *(float(d["moved"]) for d in doses)]), _ticks([0.0, *ends])
    x = _scale([*across, *(float(d["moved"]) for d in doses)], 60, width - 20)
    y = _scale([*up, *ends], height - 46, 40)
    drawn = [
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="40" y2="{height - 46}" stroke="currentColor" stroke-opacity="0.3"/>'
        f'<line x1="60" x2="{width - 20}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="currentColor" stroke-opacity="0.3"/>'
    ]
    for kind, colour, dash in (("prompt", PLUS, ""), ("steering", MINUS, ' stroke-dasharray="7 4"')):
        points = [d for d in doses if d.get("kind") == kind]
        ordered = sorted(points, key=lambda d: float(d["amount"] or 0.0))
        path = "L".join(f"{x(float(d['moved'])):.1f},{y(float(d['answer'])):.1f}" for d in ordered)
        drawn.append(
            f'<path d="M{x(0):.1f},{y(0):.1f}L{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
            if path
            else ""
        )
        drawn += [_dose_mark(d, kind, colour, x(float(d["moved"])), y) for d in ordered]
    for value in up:
        drawn.append(
            f'<text x="54" y="{y(value) + 4:.1f}" text-anchor="end" font-size="12" fill="currentColor">{_tick(value)}</text>'
        )
    for value in across:
        drawn.append(
            f'<text x="{x(value):.1f}" y="{height - 28}" text-anchor="middle" font-size="12" fill="currentColor">{_tick(value)}</text>'
        )
    drawn += [_dose_legend(kind, left) for kind, left in (("prompt", 60), ("steering", 230))]
    words = "change of the direction’s reading; up: change of the answer’s log-odds"
    drawn.append(
        f'<text x="{width / 2:.0f}" y="{height - 8}" text-anchor="middle" font-size="12" fill="currentColor">{words}</text>'
    )
    label = "Dose and response of the prompt's first tokens (circles) and of steering along the direction (squares)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}" font-family="system-ui,sans-serif">{"".join(drawn)}</svg>'
    )


def _dose_mark(dose: Mapping[str, Any], kind: str, colour: str, x: float, y: Callable[[float], float]) -> str:
    amount, answer = dose.get("amount"), float(dose["answer"])
    shown = f"{float(amount):g}" if isinstance(amount, (int, float)) else "?"
    tokens = "the first token" if shown == "1" else f"the first {shown} tokens"
    name = tokens if kind == "prompt" else f"steering by {shown} of the prompt's reading"
    bar = ""
    if isinstance(dose.get("low"), (int, float)) and isinstance(dose.get("high"), (int, float)):
        bar = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(float(dose["low"])):.1f}" y2="{y(float(dose["high"])):.1f}" stroke="{colour}"/>'
    square = f'<rect x="{x - 4:.1f}" y="{y(answer) - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    mark = (
        f'<circle cx="{x:.1f}" cy="{y(answer):.1f}" r="4.5" fill="{colour}"/>' if kind == "prompt" else square
    )
    return f"<g><title>{escape(f'{name}: {_signed(answer)} log-odds')}</title>{bar}{mark}</g>"


def _dose_legend(kind: str, left: int) -> str:
    """Draw a curve's mark with its name."""
    name, colour = (
        ("prompt’s first tokens", PLUS) if kind == "prompt" else ("steering along the direction", MINUS)
    )
    dash = "" if kind == "prompt" else ' stroke-dasharray="7 4"'
    square = f'<rect x="{left + 9}" y="14" width="8" height="8" fill="{colour}"/>'
    mark = f'<circle cx="{left + 13}" cy="18" r="4.5" fill="{colour}"/>' if kind == "prompt" else square
    line = f'<line x1="{left}" x2="{left + 26}" y1="18" y2="18" stroke="{colour}" stroke-width="1.6"{dash}/>'
    return f'{line}{mark}<text x="{left + 32}" y="22" font-size="12" fill="currentColor">{name}</text>'


def _ticks(values: Sequence[float]) -> list[float]:
    """Return at most seven round axis marks that span the values, 1, 2 or 5 times a power of ten apart."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = next(
        k * 10.0**power for power in range(-9, 12) for k in (1, 2, 5) if span / (k * 10.0**power) <= 6
    )
    return [
        round(i * step, 9) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    ]


def _tick(value: float) -> str:
    """Format an axis mark with no more decimals than needed and a typographic minus."""
    return f"{value:+g}".replace("-", "−") if value else "0"


def _scale(values: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    return lambda value: start + (value - low) / room * (stop - start)
