"""How results are shown: tables and facts, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Standard output, long lines unbroken so that they can be piped."""
    return Console(soft_wrap=True)


def say(text: str) -> None:
    """One line on standard output as it is: square brackets in a path are no markup, control characters are made visible."""
    from workbench.html_text import visible

    console().print(visible(text, spaces=False), markup=False, highlight=False)


def plain(text: str) -> str:
    """Text that rich takes as text, with control characters made visible."""
    from rich.markup import escape

    from workbench.html_text import visible

    return escape(visible(text, spaces=False))


def print_frame(frame: Any, as_json: bool) -> None:
    """A DataFrame, one row per line; as JSON a list of records."""
    if as_json:
        print(frame.to_json(orient="records", force_ascii=False))
        return
    table = Table(*(plain(str(column)) for column in frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(plain(format(v, ".3f") if isinstance(v, float) else str(v)) for v in row))
    console().print(table)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """One fact a line; as JSON one object."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    table = Table("what", "figure")
    for name, value in facts.items():
        table.add_row(plain(name), plain(format(value, ".4g") if isinstance(value, float) else str(value)))
    console().print(table)


def print_notes(notes: Iterable[str], as_json: bool) -> None:
    """What a table cannot say, one note a line; nothing as JSON."""
    for note in () if as_json else notes:
        say(f"note: {note}")
