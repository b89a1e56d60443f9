"""Print results as tables and lists of facts, as text or as JSON."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Container, Iterable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table

#: Names with at most this number of characters are never shortened.
SHORTEST_NAME = 10
#: Words with more characters than this are broken in a table.
LONGEST_WORD = 60
#: Parts of a text that a table's cell does not break: a word, or a number with its unit ("2.4 GB").
_UNBROKEN = re.compile(r"[\d.,]+ [A-Za-z%]+(?!\S)|\S+")


def console() -> Console:
    """Return a console on standard output that does not break long lines, so that they can be piped."""
    return Console(soft_wrap=True)


def say(text: str) -> None:
    """Print a text as it is: brackets are not markup, and control characters are made visible.

    In a terminal the text is wrapped between words, unless one word (a path to copy) is wider than the
    terminal.
    """
    from workbench.html_text import visible

    out, shown = console(), visible(text, spaces=False)
    wrapped = out.is_terminal and max(map(cell_len, shown.split()), default=0) < out.width
    out.print(shown, markup=False, highlight=False, soft_wrap=not wrapped)


def plain(text: str) -> str:
    """Escape a text for rich, so that it is not markup, and make control characters visible."""
    from rich.markup import escape

    from workbench.html_text import visible

    return escape(visible(text, spaces=False))


def print_frame(frame: Any, as_json: bool) -> None:
    """Print a DataFrame as a table, or as a JSON list of records."""
    if as_json:
        print(frame.to_json(orient="records", force_ascii=False))
        return
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    print_rows([str(column) for column in frame.columns], rows)


def print_rows(
    heads: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", whole: Container[int] = (0,)
) -> None:
    """Print a table of texts without breaking words.

    If the columns have no room for their longest words, each row is printed as a block of lines.

    Args:
        heads: Column headers.
        rows: Texts of each row.
        title: Title of the table.
        whole: Columns whose texts must stay on one line.
    """
    out = console()
    texts = [[head, *(row[i] for row in rows)] for i, head in enumerate(heads)]
    words = [
        [part for text in column for part in ([text] if i in whole else _UNBROKEN.findall(text))]
        for i, column in enumerate(texts)
    ]
    least = [max(map(cell_len, column), default=0) for column in words]
    least = [
        word if i in whole else min(word, max(LONGEST_WORD, len(heads[i]))) for i, word in enumerate(least)
    ]
    room = out.width - sum(least) - 3 * len(heads) - 1
    if room < 0:
        _print_blocks(out, heads, rows, title)
        return
    table = Table(title=plain(title) if title else None, title_justify="left")
    for column, word in zip(texts, least, strict=True):
        more = min(
            room, max(map(cell_len, column)) - word
        )  # rich's own columns may be wider together than the terminal
        room -= more
        table.add_column(plain(column[0]), overflow="fold", width=word + more)
    for row in rows:
        table.add_row(*map(plain, row))
    out.print(table)


def print_lines(heads: Sequence[str], rows: Sequence[Sequence[Sequence[str]]]) -> bool:
    """Print each row as one line at any width of the terminal, and return whether a text was shortened.

    If the lines are too long, columns are shortened from the right: each cell takes its longest form that
    fits. If even the shortest forms do not fit, the longest columns with only one form lose the middle of
    their texts, marked by an ellipsis.

    Args:
        heads: Column headers.
        rows: For each row its cells, each a list of forms of the same text, from long to short.
    """
    from workbench.html_text import visible

    out, gap = console(), "  "
    clean = [
        [[visible(text, spaces=False).replace("\n", " ") for text in cell] for cell in row] for row in rows
    ]
    columns = [[[head], *column] for head, column in zip(heads, zip(*clean, strict=True), strict=True)]
    widths = [max(cell_len(cell[0]) for cell in column) for column in columns]
    least = [max(cell_len(cell[-1]) for cell in column) for column in columns]
    room = out.width - len(gap) * (len(heads) - 1)
    for i in reversed(range(len(heads))):
        widths[i] = max(least[i], widths[i] - max(0, sum(widths) - room))
    names = [i for i, column in enumerate(columns) if all(len(cell) == 1 for cell in column)]
    while sum(widths) > room and max(widths[i] for i in names) > SHORTEST_NAME:
        widths[max(names, key=lambda i: widths[i])] -= 1
    for line in range(len(rows) + 1):
        texts = [
            next((text for text in column[line] if cell_len(text) <= width), column[line][-1])
            for column, width in zip(columns, widths, strict=True)
        ]
        out.print(
            gap.join(map(_fitted, texts, widths)).rstrip(),
            markup=False,
            highlight=False,
            style=None if line else "bold",
        )
    return any(
        cell_len(cell[0]) > width for column, width in zip(columns, widths, strict=True) for cell in column
    )


def _fitted(text: str, width: int) -> str:
    """Return a text as exactly `width` cells; a longer one keeps beginning and end, around an ellipsis."""
    if cell_len(text) > width:
        end = width // 2
        text = f"{set_cell_size(text, width - end - 1).rstrip()}…{text[len(text) - end :]}"
    return set_cell_size(text, width)


def _print_blocks(out: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Print each row as a block: its first cell, then each other cell after its column's header."""
    wide = max((len(head) for head in heads[1:]), default=0)
    if title:
        say(title)
    for row in rows:
        say(row[0])
        for head, text in zip(heads[1:], row[1:], strict=True):
            lines = textwrap.wrap(
                text, max(20, out.width - wide - 4), break_long_words=False, break_on_hyphens=False
            ) or [""]  # paths stay whole
            for i, line in enumerate(lines if text else []):
                say(f"  {head if i == 0 else '':<{wide}}  {line}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".3f")
    return "" if value is None else str(value)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print named values as a table with one row per name, or as a JSON object."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    table = Table("what", "figure")
    for name, value in facts.items():
        table.add_row(plain(name), plain(format(value, ".4g") if isinstance(value, float) else str(value)))
    console().print(table)


def print_notes(notes: Iterable[str], as_json: bool) -> None:
    """Print each note on its own line after "note: "; print nothing if the output is JSON."""
    for note in () if as_json else notes:
        say(f"note: {note}")
