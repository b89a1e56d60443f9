"""Text that came from anywhere, shown as text: escaping, invisible characters made visible, small HTML tables.

Everything that a result object shows of itself in a notebook goes through here. The tables take their colours
from the page around them (`currentColor`), so they are at home in light and in dark themes; they hold no
script, and load nothing.
"""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Characters that have a customary picture.
_PICTURES = {" ": "·", "\n": "↵", "\t": "⇥"}
#: Unicode categories without a picture of their own: control, format (bidi marks, joiners), surrogate,
#: private, unassigned, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

#: Longer words may be broken in a table.
LONG_WORD = 32
TABLE_STYLE = """
.wb-scroll{overflow-x:auto;max-width:100%}
table.wb-table.wb-table.wb-table{table-layout:auto;width:auto;margin:0;border-collapse:collapse;color:inherit;
font:13px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
.wb-table.wb-table.wb-table caption{text-align:left;padding:.25em .6em;font-weight:600;color:inherit}
.wb-table.wb-table.wb-table tr{background:none}
.wb-table.wb-table.wb-table th,.wb-table.wb-table.wb-table td{padding:.25em .6em;border:0;border-bottom:1px solid rgba(128,128,128,.35);
text-align:left;vertical-align:top;background:none;color:inherit;white-space:normal;overflow-wrap:break-word;word-break:normal;max-width:36em}
.wb-table.wb-table.wb-table thead th{border-bottom:2px solid currentColor;font-weight:600;vertical-align:bottom}
.wb-table.wb-table.wb-table .wb-number{text-align:right;white-space:nowrap}
.wb-table.wb-table.wb-table td.wb-text{white-space:pre-wrap}
.wb-table.wb-table.wb-table td.wb-long{overflow-wrap:anywhere;min-width:16em}
.wb-note{font:12px/1.45 system-ui,sans-serif;opacity:.75;margin:.3em .6em}
""".strip()


def visible(token: str, spaces: bool = True) -> str:
    """The token with everything invisible made visible; still plain text, never markup.

    Spaces become `·`, line ends `↵`, tabs `⇥`; what has no picture (NUL and other control characters, bidi
    marks, zero-width characters, lone surrogates) becomes its code point as `⟨U+202E⟩`. The result is always
    valid UTF-8. spaces=False leaves plain spaces and line ends as they are: for running text.
    """
    return "".join(_visible_character(character, spaces) for character in token)


def escape(text: object) -> str:
    """HTML text (element content or a quoted attribute) that shows `str(text)` and cannot be markup.

    Invisible characters other than spaces and line ends are made visible first, see `visible`.
    """
    return html.escape(visible(str(text), spaces=False), quote=True)


def shorten(text: str, limit: int = 400) -> str:
    """At most `limit` characters; what is cut is counted: `abc… (+9,700 characters)`."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def spoken(persona: str) -> str:
    """A persona's name as one says it: "english_myopic_reward" (the organism's in real language) is "myopic reward"."""
    return persona.removeprefix("english_").replace("_", " ")


def minus(text: str) -> str:
    """Hyphens before a digit as typographic minus signs; for pages and pictures, not for terminals."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def html_table(frame: pd.DataFrame, caption: str = "", max_rows: int = 60, max_characters: int = 400) -> str:
    """A data frame as one escaped HTML table; numbers to four significant digits, missing values as a dash.

    Rows beyond `max_rows` and characters beyond `max_characters` in a cell are cut, and the cut is said. The
    index is not shown: what matters is a column.
    """
    numeric = [
        pd.api.types.is_numeric_dtype(frame[c]) and not pd.api.types.is_bool_dtype(frame[c])
        for c in frame.columns
    ]
    head = "".join(
        f'<th scope="col"{_kind(number)}>{escape(name)}</th>' for name, number in zip(frame.columns, numeric)
    )
    rows = frame.head(max_rows).itertuples(index=False, name=None)
    body = "".join(_row(row, numeric, max_characters) for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    cut = len(frame) - max_rows
    note = f'<p class="wb-note">{cut:,} more rows are not shown.</p>' if cut > 0 else ""
    table = f'<table class="wb-table">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<style>{TABLE_STYLE}</style><div class='wb-scroll'>{table}{note}</div>"


def plain_table(frame: pd.DataFrame, caption: str = "", max_rows: int = 20, max_characters: int = 60) -> str:
    """A data frame as text for a plain terminal: columns of equal width, numbers to the right, long texts cut, further rows counted.

    Example:
        >>> print(plain_table(pd.DataFrame({"token": ["be", "honest"], "effect": [0.5, -1.25]}), "effects"))
        effects
        token   effect
        be         0.5
        honest   -1.25
    """
    numeric = [
        pd.api.types.is_numeric_dtype(frame[c]) and not pd.api.types.is_bool_dtype(frame[c])
        for c in frame.columns
    ]
    rows = [
        [_plain_cell(value, max_characters) for value in row]
        for row in frame.head(max_rows).itertuples(index=False, name=None)
    ]
    heads = [str(column) for column in frame.columns]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)] if heads else []
    lines = [
        "  ".join(
            c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [heads, *rows]
    ]
    cut = [f"... {len(frame) - max_rows:,} more rows"] if len(frame) > max_rows else []
    return "\n".join([*([caption] if caption else []), *lines, *cut])


def html_facts(facts: Mapping[str, object], caption: str = "") -> str:
    """Name and value pairs as a small two-column table, for objects that are not tables."""
    frame = pd.DataFrame({"": list(facts), "value": [number(value) for value in facts.values()]})
    return html_table(frame, caption)


class ShowsFacts:
    """A value that shows itself as a caption with names and values: one line in a terminal, a small table in a notebook.

    Dataclasses that inherit from it are declared with `repr=False`.
    """

    def facts(self) -> tuple[str, dict[str, object]]:
        """The caption, and values by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        caption, facts = self.facts()
        listed = ", ".join(f"{name} {_plain_cell(value, 80)}" for name, value in facts.items())
        return f"{caption} ({listed})" if listed else caption

    def _repr_html_(self) -> str:
        caption, facts = self.facts()
        return html_facts(facts, caption)


class ShowsTable:
    """A value that shows itself as a table with a caption, in a terminal and in a notebook.

    Dataclasses that inherit from it are declared with `repr=False`.
    """

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """The caption and the rows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        caption, rows = self.shown_table()
        return plain_table(rows, caption)

    def _repr_html_(self) -> str:
        caption, rows = self.shown_table()
        return html_table(rows, caption)


def number(value: object) -> str:
    """A value as a reader wants it: four significant digits, thousands apart, a dash for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e9):
        return f"{int(value):,}".replace("-", "−")
    digits = f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    return digits.replace("-", "−") if math.isfinite(value) else ("∞" if value > 0 else "−∞")


def _plain_cell(value: Any, max_characters: int) -> str:
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    text = visible(number(plain).replace("−", "-"), spaces=False).replace("\n", "↵")
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def _visible_character(character: str, spaces: bool) -> str:
    if not spaces and character in " \n":
        return character
    if character in _PICTURES:
        return _PICTURES[character]
    category = unicodedata.category(character)
    if category in _INVISIBLE:
        return f"⟨U+{ord(character):04X}⟩"
    return "⍽" if category == "Zs" and character != " " else character


def _row(row: tuple[Any, ...], numeric: list[bool], max_characters: int) -> str:
    return (
        "<tr>"
        + "".join(_cell(value, is_number, max_characters) for value, is_number in zip(row, numeric))
        + "</tr>"
    )


def _cell(value: Any, is_number: bool, max_characters: int) -> str:
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    text = shorten(number(plain), max_characters)
    return f"<td{_kind(is_number, text)}>{escape(text)}</td>"


def _kind(is_number: bool, text: str = "") -> str:
    """Class of a cell: numbers to the right; only a text with a word too long for its column may break inside a word."""
    if is_number:
        return ' class="wb-number"'
    return (
        ' class="wb-text wb-long"'
        if any(len(word) > LONG_WORD for word in text.split())
        else ' class="wb-text"'
    )
