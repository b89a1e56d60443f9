"""Saving a chart to a file: which formats there are, and one line for a name that is none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.errors import UserError

#: File name endings that a chart can be saved to, without a browser.
FORMATS = (".svg", ".png", ".pdf", ".html")


def save_figure(chart: Any, target: str | Path) -> Path:
    """Draws a chart into a file.

    Args:
        chart: A chart of `wb.figures`.
        target: A name that ends in one of FORMATS, in a directory that exists.

    Returns:
        The path.

    Raises:
        UserError: Another ending, or no such directory.

    Example:
        >>> save_figure(wb.figures.forest(comparison), "forest.svg")  # doctest: +SKIP
    """
    target = check_target(target)
    chart.save(str(target))
    return target


def check_target(target: str | Path) -> Path:
    """The path, checked before anything is computed for it; UserError as `save_figure`."""
    target = Path(target)
    if target.suffix not in FORMATS:
        raise UserError(
            f"cannot draw into {target}: expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    if not target.parent.is_dir():
        raise UserError(f"cannot draw into {target}: {target.parent} is no directory")
    return target
