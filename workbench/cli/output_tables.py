"""How results are shown: tables and facts, as text or as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Container, Iterable, Sequence
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
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    print_rows([str(column) for column in frame.columns], rows)


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", whole: Container[int] = ()) -> None:
    """A table of texts that cuts no word: where the columns cannot hold their longest words, one block of lines a row.

    whole: columns whose texts stay on one line.
    """
    out = console()
    words = [[part for row in rows for part in ([row[i]] if i in whole else row[i].split())] for i in range(len(heads))]
    longest = [max(map(len, column), default=0) for column in words]
    needed = sum(max(len(head), min(word, 60)) + 3 for head, word in zip(heads, longest, strict=True)) + 1
    if needed > out.width:
        _print_blocks(out, heads, rows, title)
        return
    table = Table(title=plain(title) if title else None, title_justify="left")
    for head, word in zip(heads, longest, strict=True):
        table.add_column(plain(head), overflow="fold", min_width=max(len(head), min(word, 60)))
    for row in rows:
        table.add_row(*map(plain, row))
    out.print(table)


def _print_blocks(out: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """The first cell of a row, then each other one after its column's head."""
    wide = max((len(head) for head in heads[1:]), default=0)
    if title:
        say(title)
    for row in rows:
        say(row[0])
        for head, text in zip(heads[1:], row[1:], strict=True):
            lines = textwrap.wrap(text, max(20, out.width - wide - 4)) or [""]
            for i, line in enumerate(lines if text else []):
                say(f"  {head if i == 0 else '':<{wide}}  {line}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".3f")
    return "" if value is None else str(value)


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
