"""Show a running search: one line in a terminal, or a plot that is updated in place in a notebook.

    wb.search(model, goal, contexts, on_step=wb.LiveFrontier())

The plot is one SVG without scripts; it needs only IPython's own display.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from workbench.html_text import escape, number
from workbench.plots.palette import BLUE
from workbench.search.search_progress import SearchProgress

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 460, 240, 64, 40, 12


@dataclass
class LiveFrontier:
    """Show a running search as a line in a terminal or a plot in Jupyter, for `search(..., on_step=...)`.

    Attributes:
        every: Least number of seconds between two updates (the last step is always shown).
        stream: Stream for the terminal's line; None for standard error.

    Example:
        >>> import io
        >>> shown = io.StringIO()
        >>> method, show = wb.RandomSearch(length=3), wb.LiveFrontier(stream=shown)
        >>> found = wb.search(model, wb.answer_log_odds(), contexts, method, wb.Budget(steps=1), on_step=show)
        >>> "step 1" in shown.getvalue()
        True
    """

    every: float = 0.5
    stream: TextIO | None = None
    _shown: float = field(default=0.0, init=False, repr=False)
    _display: object = field(default=None, init=False, repr=False)

    def __call__(self, progress: SearchProgress) -> None:
        """Show the state of a search, at most once in `every` seconds; the last step is always shown."""
        now, last = time.monotonic(), progress.used >= 1
        if not last and now - self._shown < self.every:
            return
        self._shown = now
        if self.stream is None and _in_notebook():
            self._draw(progress)
        else:
            stream = self.stream or sys.stderr
            ends = "\n" if last or not stream.isatty() else ""
            stream.write(f"\r\x1b[K{line(progress)}{ends}" if stream.isatty() else f"{line(progress)}{ends}")
            stream.flush()

    def _draw(self, progress: SearchProgress) -> None:
        from IPython.display import HTML, display

        page = HTML(picture(progress))
        if self._display is None:
            self._display = display(page, display_id=True)
        else:
            self._display.update(page)  # type: ignore[attr-defined]


def line(progress: SearchProgress) -> str:
    """Return one line of text on a search's progress.

    Example: `step 12 · best +3.21 · cross-entropy 5.20 nats · 830 candidates/s · 0:14 left`.
    """
    left = "" if progress.seconds_left is None else f" · {_clock(progress.seconds_left)} left"
    return (
        f"step {progress.step} · best {progress.best_objective:+.2f} · cross-entropy {progress.best_cross_entropy:.2f} nats · "
        f"{number(round(progress.candidates_per_second))} candidates/s{left}"
    )


def picture(progress: SearchProgress) -> str:
    """Return the frontier so far as HTML: a line of numbers and a plot of objective against cross-entropy."""
    x, y = progress.frontier.cross_entropy.tolist(), progress.frontier.objective.tolist()
    across, up = _scale(x, _LEFT, _WIDTH - _EDGE), _scale(y, _HEIGHT - _BOTTOM, _EDGE)
    dots = "".join(
        f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="4" fill="{BLUE}"/>'
        for a, b in zip(x, y, strict=True)
    )
    steps = "".join(f"H{across(a):.1f}V{up(b):.1f}" for a, b in zip(x[1:], y[1:], strict=True))
    path = f'<path d="M{across(x[0]):.1f} {up(y[0]):.1f}{steps}" fill="none" stroke="{BLUE}" stroke-opacity=".4"/>'
    axes = f'<path d="M{_LEFT} {_EDGE}V{_HEIGHT - _BOTTOM}H{_WIDTH - _EDGE}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
    ticks = "".join(
        _text(across(v), _HEIGHT - _BOTTOM + 16, f"{v:.1f}", "middle")
        for v in dict.fromkeys((min(x), max(x)))
    )
    ticks += "".join(_text(_LEFT - 6, up(v) + 4, f"{v:+.1f}", "end") for v in dict.fromkeys((min(y), max(y))))
    title = _text(
        (_LEFT + _WIDTH) / 2, _HEIGHT - 6, "cross-entropy, nats per token (left: more fluent)", "middle"
    )
    side = _text(
        14,
        (_HEIGHT - _BOTTOM) / 2,
        "objective",
        "middle",
        f' transform="rotate(-90 14 {(_HEIGHT - _BOTTOM) / 2})"',
    )
    label = f"objective against fluency of {len(x)} prompts"
    return (
        f'<div style="font:13px system-ui,sans-serif">{escape(line(progress))}</div>'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'style="max-width:100%;color:inherit">{axes}{path}{dots}{ticks}{title}{side}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor"{more}>{escape(text)}</text>'


def _scale(values: list[float], start: float, end: float):
    """Return a linear map from the values' range to start..end with a margin.

    A single value is mapped to the middle.
    """
    low, high = min(values), max(values)
    inner = 0.06 * (end - start)
    share = (lambda v: (v - low) / (high - low)) if high > low else (lambda v: 0.5)
    return lambda v: start + inner + share(v) * (end - start - 2 * inner)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
