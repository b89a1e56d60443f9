"""The comparison as a table for a paper, in LaTeX (booktabs) and in Markdown from the same rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.comparison.claim_sentences import ends, percent, signed
from workbench.conditions import condition_label
from workbench.html_text import shorten, visible
from workbench.schema import ComparisonFile

HEADS = ("Condition", "Rate", "95 % CI", "Change, log-odds", "95 % CI", "Cross-entropy", "Prompt")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def table_rows(comparison: ComparisonFile) -> list[tuple[str, ...]]:
    """Return the table of a comparison for a paper, one row per condition (a prompt or intervention).

    All cells are texts. The columns are HEADS: name, rate, change of the log-odds, cross-entropy and prompt.

    Args:
        comparison: Contents of comparison.json.
    """
    rows = []
    for entry in comparison.conditions:
        found = None if entry.name == comparison.baseline else entry.difference(comparison.baseline)
        rate = "" if entry.rate is None else percent(entry.rate)
        moved = "" if found is None or found.log_odds is None else signed(found.log_odds)
        nats = "" if entry.fluency is None else f"{entry.fluency:.2f}"
        prompt = shorten(visible(entry.prompt or "", spaces=False).replace("\n", " "), 160)
        interval = "" if found is None else ends(found.log_odds_ci, signed)
        rows.append(
            (condition_label(entry.name), rate, ends(entry.ci, percent), moved, interval, nats, prompt)
        )
    return rows


def latex_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Format the rows of a comparison as a LaTeX booktabs table, with all text escaped.

    Args:
        rows: Rows from `table_rows`.
        caption: Caption of the table.
    """
    head = " & ".join(map(latex, HEADS))
    body = "\n".join("  " + " & ".join(map(latex, row)) + r" \\" for row in rows)
    begin = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{latex(caption)}}}",
        r"\begin{tabular}{lrlrlrp{5cm}}",
    ]
    lines = [
        *begin,
        r"\toprule",
        f"  {head} \\\\",
        r"\midrule",
        body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Format the rows of a comparison as a Markdown table, with special characters escaped.

    Args:
        rows: Rows from `table_rows`.
        caption: Text below the table.
    """
    lines = [
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(f"| {' | '.join(map(_markdown, row))} |" for row in rows),
    ]
    return "\n".join(lines) + f"\n\n{caption}\n"


def latex(text: str) -> str:
    """Escape a text so that LaTeX prints it unchanged; a hyphen before a digit becomes a minus sign."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", text)
