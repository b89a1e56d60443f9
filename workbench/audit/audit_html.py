"""HTML of an audit: one fragment that notebooks show and pages contain.

All text is escaped. There are no scripts, and nothing is loaded from the network. Deleted words are struck
through and called "deleted" for screen readers, new words are underlined and called "inserted". The sign of
an effect is shown as a sign and an arrow; colour only repeats it.
"""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from workbench.audit import findings_text as story
from workbench.audit.audit_result import Audit
from workbench.html_text import escape
from workbench.runs import write_text
from workbench.statistics import Interval

_OPEN = {
    "old": '<del><span class="sr">deleted: </span>',
    "new": '<ins><span class="sr">inserted: </span>',
    "kept": "<span>",
}
_CLOSE = {"old": "</del>", "new": "</ins>", "kept": "</span>"}


def write_page(audit: Audit, path: str | Path) -> None:
    """Write an audit as an HTML page in the style of a study's report.

    Args:
        audit: The audit.
        path: The HTML file to write.

    Raises:
        UserError: The file cannot be written.
    """
    style = "".join(_asset("workbench.report", name) for name in ("shared.css", "report.css")) + _asset(
        "workbench.audit", "audit.css"
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape(story.question(audit))
    made = f"persona workbench audit · {audit.questions} test questions in {audit.groups} groups · seed {audit.seed} · slot {audit.slot}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{style}</style></head>'
        f'<body><main><section class="answer"><h1>{title}</h1>{fragment(audit)}</section></main><footer>{escape(made)}</footer></body></html>\n'
    )
    write_text(path, page)


def notebook_html(audit: Audit) -> str:
    """Return the audit's HTML fragment with its style, for a notebook."""
    return f"<style>{_asset('workbench.audit', 'audit.css')}</style>{fragment(audit)}"


def fragment(audit: Audit) -> str:
    """Return the audit's HTML fragment: verdict, tracked changes, table of words, side effects, notes."""
    lines = [story.whole(audit), story.causes(audit), *story.phrases(audit)]
    verdict = "".join(f"<p>{escape(line)}</p>" for line in lines)
    notes = [*(entry.verdict for entry in audit.mediation), *audit.notes]
    listed = "".join(f"<li>{escape(line)}</li>" for line in notes)
    return f'<div class="wb-audit">{verdict}{_tracked(audit)}{_table(audit)}{f"<ul class=wb-notes>{listed}</ul>" if notes else ""}</div>'


def _tracked(audit: Audit) -> str:
    pieces = audit.minimal_edit.pieces if audit.minimal_edit else ()
    text = "".join(_OPEN[p.kind] + escape(p.text) + _CLOSE[p.kind] for p in pieces) or escape(audit.prompt)
    side = "".join(
        f"<li>{escape(story.collateral(entry))}</li>"
        for entry in (audit.minimal_edit.collateral if audit.minimal_edit else ())
    )
    return (
        f'<figure class="wb-tracked"><blockquote>{text}</blockquote><figcaption>{escape(story.minimal_edit_sentence(audit))}</figcaption></figure>'
        + (f"<ul class=wb-side>{side}</ul>" if side else "")
        + _added(audit)
    )


def _added(audit: Audit) -> str:
    first, *rest = story.sentence_offer(audit) or ("",)
    if not first:
        return ""
    listed = "".join(f"<li>{escape(line)}</li>" for line in rest)
    return f"<p class=wb-added>{escape(first)}</p>" + (f"<ul class=wb-side>{listed}</ul>" if listed else "")


def _table(audit: Audit) -> str:
    words = audit.effects.words
    reach = (
        max(
            (max(abs(w.interval.low), abs(w.interval.high)) for w in words if w.interval.groups > 1),
            default=1.0,
        )
        or 1.0
    )
    inside = any(w.through for w in words)
    last = '<th scope="col" class=wb-inside>what it moves inside</th>' if inside else ""
    rows = "".join(_row(audit, i, reach, inside) for i in range(len(words)))
    caption = f"Effect of each word on the answer, log-odds, with its 95 % interval; ▲ raises, ▼ lowers, · below {audit.tolerance / 2:g} or not clear"
    head = f'<tr><th scope="col">word</th><th scope="col">effect</th><th scope="col">interval</th><th scope="col">p</th>{last}</tr>'
    return (
        '<div class="wb-scroll" tabindex="0" role="region" aria-label="Effect of each word">'
        f'<table class="wb-words"><caption>{escape(caption)}</caption><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )


def _row(audit: Audit, index: int, reach: float, inside: bool) -> str:
    word = audit.effects.words[index]
    mark = ("▲" if word.interval.estimate > 0 else "▼") if word.named else "·"
    named = ' class="wb-named"' if word.named else ""
    moved = escape(story.passage(audit, index)) if inside else ""
    last = f"<td class=wb-inside>{moved or '–'}</td>" if inside else ""
    below = (
        f"<small class=wb-below>{moved}</small>" if moved else ""
    )  # in place of the last column where the screen is narrow
    p = "&lt; 0.001" if word.p < 0.001 else f"{word.p:.3f}"
    seen = f'{_bar(word.interval, reach)}<small class="wb-figure">{story.ends(word.interval)}</small>{below}'
    return (
        f'<tr{named}><th scope="row">{mark} {escape(story.word(audit, index))}</th><td class="wb-figure">{story.signed(word.interval.estimate)}</td>'
        f'<td>{seen}</td><td class="wb-figure">{p}</td>{last}</tr>'
    )


def _bar(interval: Interval, reach: float) -> str:
    """Draw an interval as a small picture around zero; its ends are given below it as text."""
    x = lambda value: 60 + 56 * max(-1.0, min(1.0, value / reach))  # noqa: E731
    hue = "wb-plus" if interval.estimate > 0 else "wb-minus"
    return (
        f'<svg class="{hue}" viewBox="0 0 120 16" width="120" height="16" aria-hidden="true">'
        '<line x1="60" x2="60" y1="0" y2="16" class="wb-zero"/>'
        f'<line x1="{x(interval.low):.1f}" x2="{x(interval.high):.1f}" y1="8" y2="8" class="wb-arm"/>'
        f'<circle cx="{x(interval.estimate):.1f}" cy="8" r="3.5"/></svg>'
    )


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
