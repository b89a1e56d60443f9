"""Terminal view of an audit: sentences, tracked changes with wdiff's marks, and the table of words.

The marks make deletions and insertions visible without colour.
"""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from workbench.audit import findings_text as story
from workbench.audit.audit_result import Audit
from workbench.html_text import visible

_STYLES = {"kept": "", "old": "strike red", "new": "underline green"}
_MARKS = {"kept": "{}", "old": "[-{}-]", "new": "{{+{}+}}"}


def render(audit: Audit) -> RenderableType:
    """Build the view of an audit for a terminal, as an object that `rich` prints.

    Markup in the audit's text is shown as text.

    Args:
        audit: The audit.
    """
    lines = [story.whole(audit), story.causes(audit), *story.phrases(audit)]
    paragraphs = [
        story.minimal_edit_sentence(audit),
        *(
            f"  {story.collateral(entry)}"
            for entry in (audit.minimal_edit.collateral if audit.minimal_edit else ())
        ),
        *story.sentence_offer(audit),
    ]
    notes = [*(entry.verdict for entry in audit.mediation), *(f"note: {line}" for line in audit.notes)]
    return Group(
        *map(_text, lines),
        Text(),
        _tracked(audit),
        Text(),
        *map(_text, paragraphs),
        Text(),
        _table(audit),
        *map(_text, notes),
    )


def _text(line: str) -> Text:
    """Convert a sentence of the findings to terminal text with ASCII minus signs.

    Pages use typographic minus signs, but numbers in a terminal are copied into programs.
    """
    return Text(re.sub(r"\N{MINUS SIGN}(?=\d)", "-", visible(line, spaces=False)))


def _tracked(audit: Audit) -> Text:
    if audit.minimal_edit is None:
        return Text(visible(audit.prompt, spaces=False))
    return Text.assemble(
        *(
            (_MARKS[p.kind].format(visible(p.text, spaces=False)), _STYLES[p.kind])
            for p in audit.minimal_edit.pieces
        )
    )


def _table(audit: Audit) -> Table:
    inside = any(word.through for word in audit.effects.words)
    table = Table("word", "effect", "95 % interval", "p", *(["what it moves inside"] if inside else []))
    for i, word in enumerate(audit.effects.words):
        mark = ("▲" if word.interval.estimate > 0 else "▼") if word.named else "·"
        figures = (
            story.signed(word.interval.estimate),
            story.ends(word.interval),
            "< 0.001" if word.p < 0.001 else f"{word.p:.3f}",
        )
        cells = [f"{mark} {story.word(audit, i)}", *figures, *([story.passage(audit, i)] if inside else [])]
        table.add_row(*map(_text, cells), style="bold" if word.named else "")
    return table
