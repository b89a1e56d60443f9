"""Show untrusted text safely: escape HTML, make invisible characters visible, build small HTML tables.

All result objects use these functions to show themselves in a notebook. The tables take their colours from
the page around them (`currentColor`), so they fit light and dark themes; they contain no script and load
nothing.
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

#: Characters that are shown as a customary symbol.
_PICTURES = {" ": "·", "\n": "↵", "\t": "⇥"}
#: Unicode categories of characters that are not drawn: control, format (bidi marks, joiners), surrogate,
#: private, unassigned, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

#: Words with more characters than this may be broken in a table.
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
    """Replace invisible characters of a token by visible ones; the result is plain text, not markup.

    Spaces become `·`, line ends `↵`, tabs `⇥`. Characters without a picture (NUL and other control
    characters, bidi marks, zero-width characters, lone surrogates) become their code point, as `⟨U+202E⟩`.
    The result is always valid UTF-8.

    Args:
        token: The text.
        spaces: Whether spaces and line ends are replaced; False leaves them as they are, for running text.
    """
    return "".join(_visible_character(character, spaces) for character in token)


def escape(text: object) -> str:
    """Return HTML that shows `str(text)` and cannot act as markup, for element content or a quoted attribute.

    Invisible characters other than spaces and line ends are first made visible (`visible`).
    """
    return html.escape(visible(str(text), spaces=False), quote=True)


def shorten(text: str, limit: int = 400) -> str:
    """Cut a text to `limit` characters and append the number cut: `abc… (+9,700 characters)`."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def spoken(persona: str) -> str:
    """Return a persona's name for display: "english_myopic_reward" becomes "myopic reward".

    The prefix `english_` marks personas of the package's model of real English.
    """
    return persona.removeprefix("english_").replace("_", " ")


def minus(text: str) -> str:
    """Replace hyphens before a digit by typographic minus signs, for pages and pictures."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def html_table(frame: pd.DataFrame, caption: str = "", max_rows: int = 60, max_characters: int = 400) -> str:
    """Return a data frame as an escaped HTML table; the index is not shown.

    Numbers have four significant digits and missing values are a dash.

    Args:
        frame: The table.
        caption: Title of the table. Empty: none.
        max_rows: Most rows shown; a note gives the number of rows left out.
        max_characters: Most characters of a cell; the number of characters cut is appended.
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
    """Return a data frame as text for a plain terminal, with aligned columns and numbers on the right.

    Args:
        frame: The table; its index is not shown.
        caption: First line of the text. Empty: none.
        max_rows: Most rows shown; a last line gives the number of rows left out.
        max_characters: Most characters of a cell; a longer one ends in an ellipsis.

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
    """Return pairs of name and value as an HTML table of two columns, for objects that are not tables."""
    frame = pd.DataFrame({"": list(facts), "value": [number(value) for value in facts.values()]})
    return html_table(frame, caption)


class ShowsFacts:
    """Base class of values that are shown as a caption with named values.

    A terminal shows one line, a notebook a small table. Subclasses define `facts`; dataclasses among them are
    declared with `repr=False`.
    """

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return the caption and a dictionary of the values to show, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        caption, facts = self.facts()
        listed = ", ".join(f"{name} {_plain_cell(value, 80)}" for name, value in facts.items())
        return f"{caption} ({listed})" if listed else caption

    def _repr_html_(self) -> str:
        caption, facts = self.facts()
        return html_facts(facts, caption)


class ShowsTable:
    """Base class of values that are shown as a table with a caption, in a terminal and in a notebook.

    Subclasses define `shown_table`; dataclasses among them are declared with `repr=False`.
    """

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the caption and the table to show, as a DataFrame."""
        raise NotImplementedError

    def __repr__(self) -> str:
        caption, rows = self.shown_table()
        return plain_table(rows, caption)

    def _repr_html_(self) -> str:
        caption, rows = self.shown_table()
        return html_table(rows, caption)


def number(value: object) -> str:
    """Format a value for a reader: four significant digits, thousands separators, a dash if missing."""
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
    """Return the class attribute of a table cell: numbers are right-aligned, long words may break."""
    if is_number:
        return ' class="wb-number"'
    return (
        ' class="wb-text wb-long"'
        if any(len(word) > LONG_WORD for word in text.split())
        else ' class="wb-text"'
    )
