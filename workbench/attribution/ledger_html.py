"""Notebook view of token effects: a matrix of coloured, signed numbers as escaped HTML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.html_text import TABLE_STYLE, escape, number, shorten, visible

MAX_ROWS = 16
MAX_TOKENS = 60
#: Largest number of characters of a token or a row's name; longer text is shortened.
LONGEST = 60
#: Orange for plus, blue for minus: colour-blind readers can distinguish these. Every cell also has its sign.
_PLUS, _MINUS = "230,110,20", "20,120,200"


def matrix_html(
    tokens: Sequence[str],
    names: Sequence[str],
    means: Float[np.ndarray, "prompt_pos target"],
    caption: str,
    lines: Sequence[str] = (),
) -> str:
    """Render a matrix of effects (rows: targets, columns: tokens) as one escaped HTML table.

    Args:
        tokens: The prompt's tokens; at most MAX_TOKENS are shown, and a note gives the number of the others.
        names: Names of the targets; at most MAX_ROWS are shown.
        means: Effects in each target's unit.
        caption: Caption of the table.
        lines: Notes below the table.

    Returns:
        HTML with its style.
    """
    head = "".join(
        f'<th scope="col">{escape(shorten(visible(token), LONGEST))}</th>' for token in tokens[:MAX_TOKENS]
    )
    body = "".join(_row(name, means[:MAX_TOKENS, t]) for t, name in enumerate(names[:MAX_ROWS]))
    limits = ((tokens, MAX_TOKENS, "tokens"), (names, MAX_ROWS, "rows"))
    cut = [
        f"{len(all_) - limit} more {what} are not shown." for all_, limit, what in limits if len(all_) > limit
    ]
    notes = "".join(f'<p class="wb-note">{escape(line)}</p>' for line in [*lines, *cut])
    table = f'<table class="wb-table"><caption>{escape(caption)}</caption><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<style>{TABLE_STYLE}</style><div style="overflow-x:auto">{table}{notes}</div>'


def _row(name: str, values: np.ndarray) -> str:
    most = max(float(np.abs(values).max(initial=0)), 1e-12)
    return f'<tr><th scope="row">{escape(shorten(name, LONGEST))}</th>{"".join(_cell(float(value), most) for value in values)}</tr>'


def _cell(value: float, most: float) -> str:
    shade = 0.55 * (abs(value) / most) ** 0.8
    colour = _PLUS if value > 0 else _MINUS
    sign = "+" if value > 0 else ""
    return f'<td class="wb-number" style="background:rgba({colour},{shade:.2f})">{sign}{number(float(f"{value:.2g}"))}</td>'


def agreement_lines(agreement: pd.DataFrame) -> list[str]:
    """Describe how well each estimator orders the tokens, compared with exact removal, in one line each.

    Args:
        agreement: The table `Ledger.agreement`.
    """
    lines = []
    for name, part in agreement.groupby("estimator", sort=False):
        known = part["rank_correlation"].dropna()
        if len(known):
            lines.append(
                f"{name} orders the tokens as removal does with a rank correlation of {known.median():.2f} (median of {len(known)} rows)."
            )
    return lines
