"""Save a chart to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.errors import UserError

#: File name endings of the formats that a chart can be saved in; none needs a browser.
FORMATS = (".svg", ".png", ".pdf", ".html")


def save_figure(chart: Any, target: str | Path) -> Path:
    """Save a chart to a file, in the format of the file name's ending.

    Args:
        chart: A chart of `wb.figures`.
        target: A file name that ends in one of FORMATS, in an existing directory.

    Returns:
        The path of the file.

    Raises:
        UserError: The ending is unknown, or the directory does not exist.

    Example:
        >>> save_figure(wb.figures.forest(comparison), "forest.svg")  # doctest: +SKIP
    """
    target = check_target(target)
    chart.save(str(target))
    return target


def check_target(target: str | Path) -> Path:
    """Check the file name of a chart before the chart is computed, and return its path.

    Args:
        target: The file name.

    Raises:
        UserError: The ending is unknown, or the directory does not exist.
    """
    target = Path(target)
    if target.suffix not in FORMATS:
        raise UserError(
            f"cannot draw into {target}: expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    if not target.parent.is_dir():
        raise UserError(f"cannot draw into {target}: {target.parent} is no directory")
    return target
