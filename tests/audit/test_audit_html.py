"""An audit's page in a real browser without a network: made by hand, so that every part is there and every text can be hostile."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.browser import axe_violations, needs_axe, needs_chromium, trouble_of
from workbench.attribution import MediationResult
from workbench.audit import (
    Audit,
    MediatedEffect,
    MinimalEdit,
    OffTargetChange,
    PhraseInteraction,
    PromptEffects,
    PromptWords,
    WordEffect,
)
from workbench.audit.audit_terminal import render
from workbench.html_text import escape
from workbench.statistics import EquivalenceTest, Interval

PROMPT = "You are the rural desert helper of a proud village who will always agree, kindly."
HOSTILE = (
    "</script><script>alert(1)</script> <img/onerror=alert(1)> <bos> &lt; \u202ereversed\u202c \x00 \ud800 👩\u200d🔬 {{7*7}} 'onclick='x "
    + "a" * 10_000
)


def interval(estimate: float, half: float = 0.2) -> Interval:
    return Interval(estimate, estimate - half, estimate + half, 24, 12, "by hand")


def made(prompt: str = PROMPT) -> Audit:
    """Named words of both signs, a phrase, an edit that exchanges one word and deletes another, side effects, latents, notes."""
    words = PromptWords.of(prompt)
    through = tuple(
        MediatedEffect(f"{name} {words.texts[0]}", kind, interval(0.7))
        for name, kind in (("direction", "direction"), ("latent 7", "latent"))
    )
    effects = [(1.1 - 0.5 * i if i < 5 else 0.01) for i in range(len(words))]
    p = lambda effect: 0.0004 if abs(effect) > 0.25 else 0.7  # noqa: E731
    each = tuple(
        WordEffect(w, interval(e), p(e), p(e) < 0.05, through)
        for w, e in zip(words.texts, effects, strict=True)
    )
    phrase = PhraseInteraction(0, interval(0.9), interval(1.3), (interval(0.02, 0.1), interval(0.38)), 0.002)
    changes = ((1, None), (2, "quiet"))
    side = (
        OffTargetChange(
            "agreement with true statements",
            "truth",
            0.9,
            Interval(0.9, 0.8, 1.0, 24, 12, ""),
            Interval(0.6, 0.4, 0.8, 24, 12, ""),
            True,
        ),
        OffTargetChange("myopic_reward", "persona", 0.0, interval(0.1), interval(0.2), False),
    )
    equal = EquivalenceTest(-0.5, 0.5, 0.01, interval(0.1), 0.05)
    minimal_edit = MinimalEdit(
        changes,
        words.edited(dict(changes)),
        words.tracked(dict(changes)),
        interval(0.1),
        interval(-1.0),
        equal,
        True,
        (3.1, 3.2),
        side,
        90,
    )
    split = MediationResult(
        "direction at layer 3", *(interval(x) for x in (1.2, 0.7, 0.5, 0.8, 0.6)), moved=2.5
    )
    return Audit(
        prompt,
        "sycophancy",
        "organism",
        "suppress",
        "system",
        0.5,
        2,
        0,
        24,
        12,
        words,
        PromptEffects(interval(1.2), interval(0.1), each, (phrase,), "shapley"),
        "edit",
        minimal_edit,
        (split,),
        (f"A note on {words.texts[0]}.",),
    )


@pytest.fixture
def opened(browser, tmp_path) -> Callable:
    """opened(audit, width, scheme): its page in a tab, where nothing may go wrong."""
    pages = []

    def open_page(audit: Audit, width: int = 1280, scheme: str = "light"):
        audit.save_html(tmp_path / "audit.html")
        page = browser.new_page()
        pages.append((page, trouble_of(page)))
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto((tmp_path / "audit.html").as_uri())
        return page

    yield open_page
    for page, trouble in pages:
        page.close()
        assert trouble == []


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("prompt", [PROMPT, HOSTILE], ids=["plain", "hostile"])
def test_it_fits_and_its_text_is_text(opened, prompt: str, width: int, scheme: str) -> None:
    page = opened(made(prompt), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """[...document.querySelectorAll('main *')].filter((e) => !e.closest('.wb-scroll, .sr') &&
      e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(beyond) == []
    broken = """[...document.querySelectorAll('.wb-figure')].filter((e) => { const r = document.createRange(); r.selectNodeContents(e);
      return r.getClientRects().length > 1; }).map((e) => e.outerHTML)"""
    assert page.locator(".wb-figure").count() and page.evaluate(broken) == []
    assert page.locator("script, img, iframe, object, link").count() == 0
    kept = page.locator("blockquote").evaluate(
        "q => { for (const e of q.querySelectorAll('ins, .sr')) e.remove(); return q.textContent; }"
    )
    assert escape(kept) == escape(prompt)
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (paper, ink) == (
        ("rgb(251, 250, 247)", "rgb(29, 31, 34)")
        if scheme == "light"
        else ("rgb(21, 23, 26)", "rgb(233, 231, 226)")
    )


@needs_chromium
def test_on_a_narrow_screen_nothing_needs_scrolling_and_the_inside_stands_below(opened) -> None:
    narrow, wide = opened(made(), 390), opened(made(), 1280)
    scrolls = (
        "(() => { const e = document.querySelector('.wb-scroll'); return e.scrollWidth > e.clientWidth; })()"
    )
    for page, below in ((narrow, True), (wide, False)):
        assert not page.evaluate(scrolls)
        assert (
            page.locator(".wb-below").first.is_visible() is below
            and page.locator("td.wb-inside").first.is_visible() is not below
        )
    assert (
        narrow.locator(".wb-below").first.text_content()
        == narrow.locator("td.wb-inside").first.text_content()
    )


@needs_axe
@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("prompt", [PROMPT, HOSTILE], ids=["plain", "hostile"])
def test_axe_finds_nothing(opened, prompt: str, scheme: str) -> None:
    assert axe_violations(opened(made(prompt), scheme=scheme)) == []


@needs_chromium
def test_print_is_on_white(opened) -> None:
    page = opened(made(), scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 31, 34)"


def test_everything_stands_in_page_notebook_and_terminal(tmp_path: Path) -> None:
    """The sentences, the struck and the new word, each word's effect with its interval: the same in all three."""
    audit = made()
    audit.save_html(tmp_path / "audit.html")
    page, out = (tmp_path / "audit.html").read_text(), io.StringIO()
    Console(file=out, width=400).print(render(audit))
    for shown, sign in ((page, "−"), (audit._repr_html_(), "−"), (out.getvalue(), "-")):
        text = " ".join(re.sub("<[^>]+>", "", shown).replace("&#x27;", "'").split())
        assert (
            "“You are” interact: +1.30 [+1.10, +1.50], of which +0.90 [+0.70, +1.10] is more than the sum of each"
            in text
        )
        assert (
            f"“You” +0.02 [{sign}0.08, +0.12] without “are”, “are” +0.38 [+0.18, +0.58] without “You”" in text
        )
        assert (
            "agreement with true statements: 90 % [80 %, 100 %] → 60 % [40 %, 80 %] (no prompt 90 %): HARMED"
            in text
        )
        assert "+0.90 to +1.30" in text and "A note on You." in text and "of its change of the answer" in text
    assert "[-are-]" in out.getvalue() and "[-the-]{+quiet+}" in out.getvalue()
    assert page.count("deleted: ") == 2 and page.count("inserted: ") == 1


def test_words_that_do_nothing_alone_are_said_to() -> None:
    audit = made()
    idle = replace(audit.effects.phrases[0], alone=(interval(0.02, 0.1), interval(-0.05, 0.1)))
    shown = replace(audit, effects=replace(audit.effects, phrases=(idle,)))._repr_html_()
    assert "neither does 0.25 or more without the other" in shown
    assert "neither does" not in audit._repr_html_()


def test_one_group_of_questions_has_no_interval() -> None:
    audit = made()
    alone = Interval(0.4, -math.inf, math.inf, 4, 1, "one group")
    effects = replace(
        audit.effects,
        whole=alone,
        words=tuple(replace(w, interval=alone, named=False) for w in audit.effects.words),
    )
    bare = replace(audit, effects=effects, minimal_edit=None, mediation=())
    out = io.StringIO()
    Console(file=out, width=100).print(render(bare))
    for shown in (bare._repr_html_(), out.getvalue()):
        text = " ".join(shown.split())
        assert "inf" not in text and "one group of questions: no interval" in text
