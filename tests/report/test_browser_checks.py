"""What a reader does and sees, one named check each, on real runs in a real browser: every width, both themes, forced colours, paper,
mouse and keyboard. A check gives the list of what is wrong."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.browser import AXE, Tab, axe_violations, needs_chromium, wait_until
from tests.support.report_pages import KINDS, ReportPages, first_latent
from workbench.study import run

pytestmark = [needs_chromium, pytest.mark.slow, pytest.mark.timeout(3600)]
WIDTHS = (390, 768, 1280, 1920)
Look = Callable[["Seen"], list[str]]


@dataclass(frozen=True)
class Seen:
    """An open page, its tab, and the pages it comes from."""

    tab: Tab
    pages: ReportPages
    kind: str

    @property
    def page(self):
        return self.tab.page

    def open_all(self) -> None:
        self.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        self.page.wait_for_timeout(150)


@dataclass(frozen=True)
class Check:
    """name: what must hold; kind: of which page."""

    name: str
    kind: str
    look: Look
    width: int = 1280
    scheme: str = "light"
    forced: bool = False


def expect(**found: bool) -> list[str]:
    """The names of what does not hold."""
    return [name for name, holds in found.items() if not holds]


# --- layout ---
def fits(seen: Seen) -> list[str]:
    """Nothing is wider than the window, and nothing spills out of its box."""
    seen.open_all()
    wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    beyond = seen.page.evaluate("""[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, svg, .sr, pre') &&
      e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
    spilling = seen.page.evaluate("""[...document.querySelectorAll('.figures dd, .figures b, .card, button, .claim')].filter((e) =>
      e.clientWidth && e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
    return [*([f"{wide} px too wide"] if wide > 0 else []), *beyond, *spilling]


def accessible(seen: Seen) -> list[str]:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test` installs it with npm")
    seen.open_all()
    return axe_violations(seen.page)


def readable_in_forced_colours(seen: Seen) -> list[str]:
    """Every mark of a picture differs from the ground, and what is pressed from what is not."""
    seen.open_all()
    return seen.page.evaluate("""() => { const ground = getComputedStyle(document.body).backgroundColor, wrong = [];
      for (const mark of document.querySelectorAll('svg .c-fill, svg .c-open, svg .c-line')) {
        const { fill, stroke } = getComputedStyle(mark);
        if (fill === ground && stroke === ground) wrong.push(mark.outerHTML.slice(0, 80)); }
      const pressed = document.querySelector('button[aria-pressed=true]'), other = document.querySelector('button[aria-pressed=false]');
      const back = (e) => getComputedStyle(e).backgroundColor;
      if (pressed && other && back(pressed) === back(other)) wrong.push('pressed looks like not pressed');
      return wrong; }""")


def on_paper(seen: Seen) -> list[str]:
    """A4: every page has text, and no table is wider than the page."""
    texts = [content.count(b"Tj") + content.count(b"TJ") for content in pdf_pages(seen.page.pdf(format="A4"))]
    seen.page.emulate_media(media="print")
    seen.page.set_viewport_size({"width": 703, "height": 1000})
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    seen.page.wait_for_timeout(300)
    cut = seen.page.evaluate("""[...document.querySelectorAll('main table, main svg, main figure')].filter((e) => e.checkVisibility() &&
      e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
    empty = seen.page.evaluate(
        "[...document.querySelectorAll('figure.picture > div')].filter((e) => e.checkVisibility() && !e.firstChild).map((e) => e.id)"
    )
    blank = [
        f"page {number} of {len(texts)} is blank" for number, count in enumerate(texts, start=1) if count < 3
    ]
    return [*blank, *cut, *(f"{name} is empty" for name in empty), *([] if texts else ["no page"])]


def pdf_pages(content: bytes) -> list[bytes]:
    """The drawing operators of each page of a PDF that Chromium wrote."""
    objects = dict(re.findall(rb"(\d+) 0 obj\s*(.*?)endobj", content, re.DOTALL))
    pages = [body for body in objects.values() if re.search(rb"/Type\s*/Page\b", body)]
    found = []
    for body in pages:
        stream = objects[re.search(rb"/Contents (\d+) 0 R", body)[1]]
        found.append(zlib.decompressobj().decompress(stream.split(b"stream", 1)[1].lstrip(b"\r\n")))
    return found


def first_screen(seen: Seen) -> list[str]:
    """What was asked, found, how sure, shown, an example question, and the beginning of what to be careful about: within 900 px."""
    page = seen.page
    parts = "h1, #answer .verdict, .claims, .example"
    bottom = page.evaluate(
        "(s) => [...document.querySelectorAll(s)].map((e) => e.getBoundingClientRect().bottom)", parts
    )
    top = page.evaluate("document.querySelector('.caveats li').getBoundingClientRect().bottom")
    figures = page.locator(".figures dd span").all_inner_texts()
    return [
        *(["below the first screen"] if max(bottom) > 900 else []),
        *([f"the first caveat ends at {top:.0f} px"] if top > 900 else []),
        *([] if len(bottom) >= 4 else ["a part is missing"]),
        *([] if figures else ["no interval"]),
    ]


def at_twice_the_text(seen: Seen) -> list[str]:
    seen.page.evaluate("document.documentElement.style.fontSize = '200%'")
    seen.page.wait_for_timeout(300)
    wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [f"{wide} px too wide"] if wide > 0 else []


# --- keyboard ---
def skip_link(seen: Seen) -> list[str]:
    seen.page.keyboard.press("Tab")
    first = seen.page.evaluate("document.activeElement.className")
    seen.page.keyboard.press("Enter")
    return expect(
        first_stop_is_the_skip_link=first == "skip", goes_to_the_answer=seen.tab.fragment == "#answer"
    )


def every_control_is_reached(seen: Seen) -> list[str]:
    """Tab goes through all that can be used, each once, with a visible ring, and out at the end."""
    usable = "a[href], button, select, input, summary, [tabindex='0']"
    controls = (
        f'[...document.querySelectorAll("{usable}")].filter((e) => e.checkVisibility() && e.tabIndex >= 0)'
    )
    wanted = seen.page.evaluate(f"({controls}).map((e, i) => (e.dataset.stop = i)).length")
    reached, unringed = set(), []
    for _ in range(wanted + 5):
        seen.page.keyboard.press("Tab")
        stop, ring = seen.page.evaluate(
            "[document.activeElement.dataset?.stop ?? null, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if stop is None:
            break
        reached.add(stop)
        unringed += [stop] if ring == "none" else []
    return [
        *([f"{wanted - len(reached)} of {wanted} not reached"] if len(reached) < wanted else []),
        *(f"no ring on {stop}" for stop in unringed),
    ]


def theme_by_keyboard(seen: Seen) -> list[str]:
    seen.page.locator("#theme").focus()
    names = []
    for _ in range(3):
        seen.page.keyboard.press("Enter")
        names.append(seen.page.locator("#theme").inner_text())
    return expect(goes_round=names == ["Theme: light", "Theme: dark", "Theme: system"])


def claims_fold(seen: Seen) -> list[str]:
    seen.page.locator("#claims summary").focus()
    seen.page.keyboard.press("Enter")
    return expect(
        opens=seen.page.locator("#claims tbody tr").count() == 6
        and seen.page.locator("#claims table").is_visible()
    )


def press(seen: Seen, name: str, keyboard: bool) -> None:
    button = seen.page.get_by_role("button", name=name, exact=True).first
    if keyboard:
        button.focus()
        seen.page.keyboard.press("Space")
    else:
        button.click()


def forest_scale(keyboard: bool) -> Look:
    def look(seen: Seen) -> list[str]:
        before = seen.page.locator("#forest svg").inner_html()
        press(seen, "percentage points", keyboard)
        return expect(
            redrawn=seen.page.locator("#forest svg").inner_html() != before,
            address=seen.tab.fragment == "#scale=points",
        )

    return look


def other_search(keyboard: bool) -> Look:
    def look(seen: Seen) -> list[str]:
        press(seen, "SAEGA", keyboard)
        return expect(
            told=seen.page.locator("#hovered h3").inner_text() == "SAEGA: chosen",
            address="search=SAEGA" in seen.tab.fragment,
        )

    return look


def frontier_by_keyboard(seen: Seen) -> list[str]:
    seen.page.locator("#scatter svg").focus()
    seen.page.keyboard.press("Home")
    first = seen.page.locator("#hovered h3").inner_text()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("Enter")
    return expect(
        first="prompt 1 of" in first,
        moved=seen.page.locator("#hovered h3").inner_text() != first,
        kept=seen.page.locator("#pinned li").count() == 1,
    )


def middle(seen: Seen, locator) -> tuple[float, float]:
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def frontier_by_mouse(seen: Seen) -> list[str]:
    at = middle(seen, seen.page.locator("#scatter svg path.c-fill").nth(2))
    seen.page.mouse.move(*at)
    read = seen.page.locator("#hovered h3").inner_text()
    seen.page.mouse.click(*at)
    kept = seen.page.locator("#pinned li").count()
    seen.page.get_by_role("button", name="Let prompt 1 go").click()
    return expect(read="prompt " in read, kept=kept == 1, let_go=seen.page.locator("#pinned li").count() == 0)


def ledger_by_keyboard(seen: Seen) -> list[str]:
    seen.page.locator("#matrix td").first.focus()
    before = seen.page.locator("#detail h3").inner_text()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("Enter")
    kept = seen.tab.fragment
    seen.page.keyboard.press("Escape")
    return expect(
        told=seen.page.locator("#detail h3").inner_text() != before or bool(kept),
        kept=kept == "#token=1&target=1",
        let_go=seen.tab.fragment == "",
    )


def ledger_by_mouse(seen: Seen) -> list[str]:
    cell = seen.page.locator('#matrix td[data-r="2"][data-c="1"]')
    cell.hover()
    told, lit = seen.page.locator("#detail h3").inner_text(), seen.page.locator("#matrix .over").count()
    cell.click()
    return expect(
        told="Token" in told, row_and_column=lit >= 2, kept=seen.tab.fragment == "#token=1&target=2"
    )


def other_estimator(seen: Seen) -> list[str]:
    before = seen.page.locator("#matrix").inner_text()
    seen.page.locator("[data-controls=ledger] button[aria-pressed=false]").first.click()
    return expect(
        other=seen.page.locator("#matrix").inner_text() != before,
        address="by=" in seen.tab.fragment,
        agreement=seen.page.locator("#agreement").inner_text() != "",
    )


def token_strip(seen: Seen) -> list[str]:
    seen.page.locator("#strip button").first.focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("Enter")
    return expect(
        pressed=seen.page.locator("#strip button[aria-pressed=true]").count() == 1,
        address="token=1" in seen.tab.fragment,
    )


def strongest_cells(seen: Seen) -> list[str]:
    seen.open_all()
    return expect(rows=seen.page.locator("#cells tbody tr").count() > 3)


def circuit_slider(seen: Seen) -> list[str]:
    slider = seen.page.get_by_label("Least fraction of an edge, percent")
    slider.focus()
    for _ in range(20):
        seen.page.keyboard.press("ArrowRight")
    return expect(
        fewer=seen.page.locator("#circuit .gone").count() > 0, address="share=0.2" in seen.tab.fragment
    )


def circuit_by_mouse(seen: Seen) -> list[str]:
    seen.page.locator('#circuit [data-id="target:answer log-odds"]').hover()
    hovered = seen.page.locator("#circuit .dim").count()
    seen.page.locator('#circuit [data-id="target:answer log-odds"]').click()
    seen.page.locator("h1").hover()
    pinned = seen.page.locator("#circuit .dim").count()
    return expect(hover=hovered > 0, pinned=pinned > 0, address="part=" in seen.tab.fragment)


def circuit_by_keyboard(seen: Seen) -> list[str]:
    box = seen.page.locator("#circuit [data-id]").first
    box.focus()
    seen.page.keyboard.press("Enter")
    pressed = box.get_attribute("aria-pressed")
    seen.page.keyboard.press("Escape")
    return expect(pressed=pressed == "true", let_go=seen.page.locator("#circuit .dim").count() == 0)


def latent_to_card(seen: Seen) -> list[str]:
    link = seen.page.locator('#inside a[href^="#latent-"]').last
    name = link.get_attribute("href")[1:]
    link.click()
    wait_until(seen.page, f"document.getElementById('{name}').open")
    top = seen.page.evaluate(f"document.getElementById('{name}').getBoundingClientRect().top")
    return expect(in_view=-5 <= top <= 900)


def cards_are_drawn(seen: Seen) -> list[str]:
    seen.open_all()
    return expect(
        histogram=seen.page.locator(".latent svg").count() > 0,
        shaded=seen.page.locator(".texts .a4").count() > 0,
        spaces=" " in seen.page.locator(".texts li").first.inner_text(),
    )


def label_everywhere(seen: Seen) -> list[str]:
    """The label is in the table, on the card, in the token view and in the circuit."""
    latent = first_latent(seen.pages.run("labelled"))
    seen.open_all()
    places = {
        "table": "#inside table",
        "card": f"#latent-{latent} summary",
        "token view": "#matrix",
        "circuit": "#circuit",
    }
    return [
        name
        for name, place in places.items()
        if not any("says no" in text for text in seen.page.locator(place).all_text_contents())
    ]


def open_questions(seen: Seen) -> None:
    seen.page.evaluate("document.querySelector('#every-question').open = true")
    seen.page.wait_for_selector("#questions tbody tr")


def question_by_keyboard(seen: Seen) -> list[str]:
    open_questions(seen)
    seen.page.locator("#questions .opens").first.focus()
    seen.page.keyboard.press("Enter")
    parts = seen.page.locator("#questions .card.question dd").count()
    seen.page.keyboard.press("Enter")
    return expect(parts=parts == 5, closes=seen.page.locator("#questions .card.question").count() == 0)


def question_by_mouse(seen: Seen) -> list[str]:
    open_questions(seen)
    seen.open_all()
    seen.page.wait_for_selector("#strips .tick", state="attached")  # a line has no width and counts as hidden
    seen.page.mouse.click(*middle(seen, seen.page.locator("#strips .tick").nth(2)))
    return expect(
        opens=seen.page.locator("#questions .card.question").count() == 1,
        address="question=" in seen.tab.fragment,
    )


def question_filter(name: str) -> Look:
    def look(seen: Seen) -> list[str]:
        open_questions(seen)
        button = seen.page.get_by_role("button", name=re.compile(f"^{name}"))
        said = int(re.search(r"\d+", button.inner_text())[0])
        button.click()
        return expect(
            rows=seen.page.locator("#questions .opens").count() == min(25, said),
            pressed=button.get_attribute("aria-pressed") == "true",
        )

    return look


def other_condition(seen: Seen) -> list[str]:
    open_questions(seen)
    choice = seen.page.locator("#questions select")
    before = seen.page.locator("#questions tbody").inner_text()
    choice.select_option(
        index=(choice.evaluate("e => e.selectedIndex") + 1) % choice.locator("option").count()
    )
    return expect(
        other=seen.page.locator("#questions tbody").inner_text() != before,
        address="condition=" in seen.tab.fragment,
    )


def from_its_address(seen: Seen) -> list[str]:
    path = seen.pages.page(seen.kind)
    seen.tab.open(path, "#scale=points&search=SAEGA&token=2&target=1&rows=all")
    return expect(
        cell=seen.page.locator("#matrix td[aria-selected=true]").count() == 1,
        search=seen.page.locator("#hovered h3").inner_text() == "SAEGA: chosen",
        scale=seen.page.get_by_role("button", name="percentage points").get_attribute("aria-pressed")
        == "true",
    )


def navigation(seen: Seen) -> list[str]:
    wrong = []
    for link in seen.page.locator("nav a").all():
        target = link.get_attribute("href")[1:]
        link.click()
        seen.page.wait_for_timeout(700)
        top = seen.page.evaluate(f"document.getElementById('{target}').getBoundingClientRect().top")
        end = seen.page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        wrong += [] if 0 <= top < 120 or end else [f"{target} at {top:.0f}"]
    return wrong


def saved(kind: str, keyboard: bool) -> Look:
    def look(seen: Seen) -> list[str]:
        button = seen.page.locator(f"[data-tools=forest] [data-export={kind}]")
        with seen.page.expect_download() as coming:
            if keyboard:
                button.focus()
                seen.page.keyboard.press("Enter")
            else:
                button.click()
        content = coming.value.path().read_bytes()
        if kind == "svg":
            return expect(
                picture=ET.fromstring(content).tag.endswith("}svg"), own_colours=b"var(" not in content
            )
        if kind == "png":
            return expect(picture=content.startswith(b"\x89PNG"))
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
        return expect(table=len(rows) > 5 and len({len(row) for row in rows[1:]}) == 1)

    return look


def first_column_stays(seen: Seen) -> list[str]:
    seen.open_all()
    region = seen.page.locator("#comparison-table .scroll")
    region.evaluate("e => { e.scrollLeft = 400 }")
    left, place = region.evaluate(
        "e => [e.getBoundingClientRect().left, e.querySelector('tbody tr:not(.group) th').getBoundingClientRect().left]"
    )
    return expect(scrolls=region.evaluate("e => e.scrollLeft") > 0, stays=abs(left - place) < 3)


def table_scrolls_by_keyboard(seen: Seen) -> list[str]:
    seen.open_all()
    region = seen.page.locator("#comparison-table .scroll")
    region.focus()
    for _ in range(5):
        seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_timeout(400)
    return expect(scrolled=region.evaluate("e => e.scrollLeft") > 0)


def lacks(selector: str, words: str) -> Look:
    """A part that the run has no data for is not there, and nothing leads to it."""
    return lambda seen: expect(
        absent=seen.page.locator(selector).count() == 0,
        no_link=words not in seen.page.locator("nav").inner_text(),
    )


def is_small(limit: int) -> Look:
    return lambda seen: expect(small=seen.pages.page(seen.kind).stat().st_size <= limit)


def overview_links(seen: Seen) -> list[str]:
    return expect(
        links=seen.page.get_by_role("link", name="report").count() == 3,
        pictures=seen.page.locator("svg[role=img]").count() >= 1,
    )


def real_words(seen: Seen) -> list[str]:
    text = seen.page.locator("#answer").inner_text()
    return expect(
        model="SmolLM2" in text, persona="sycophancy" in text, no_raw_name="english_sycophancy" not in text
    )


FULL = "every section"
CHECKS = [
    *(
        Check(f"{kind} fits {width} px", kind, fits, width, ("light", "dark")[(i + j) % 2])
        for i, kind in enumerate(KINDS)
        if kind != "labelled"
        for j, width in enumerate(WIDTHS)
    ),
    *(
        Check(f"axe finds nothing on {kind}, {scheme}, {width} px", kind, accessible, width, scheme)
        for kind in KINDS
        if kind != "labelled"
        for scheme, width in (("light", 1280), ("dark", 390))
    ),
    *(
        Check(
            f"{kind} reads in forced colours, {scheme}",
            kind,
            readable_in_forced_colours,
            scheme=scheme,
            forced=True,
        )
        for kind in (FULL, "several runs")
        for scheme in ("light", "dark")
    ),
    Check("axe finds nothing in forced colours", FULL, accessible, forced=True),
    *(Check(f"{kind} on paper", kind, on_paper) for kind in KINDS if kind != "labelled"),
    *(
        Check(f"the first screen of {kind}", kind, first_screen)
        for kind in (FULL, "without SAE", "real language")
    ),
    Check("text of twice the size at 1280 px", FULL, at_twice_the_text),
    Check("text of twice the size at 768 px", FULL, at_twice_the_text, 768),
    Check("the skip link is the first stop", FULL, skip_link),
    Check("Tab reaches every control", FULL, every_control_is_reached),
    Check("Tab reaches every control of an overview", "several runs", every_control_is_reached),
    Check("theme by keyboard", FULL, theme_by_keyboard),
    Check("the claims' table opens by keyboard", FULL, claims_fold),
    Check("scale of the forest by mouse", FULL, forest_scale(False)),
    Check("scale of the forest by keyboard", FULL, forest_scale(True)),
    Check("another search by mouse", FULL, other_search(False)),
    Check("another search by keyboard", FULL, other_search(True)),
    Check("frontier by keyboard", FULL, frontier_by_keyboard),
    Check("frontier by mouse: read, keep, let go", FULL, frontier_by_mouse),
    Check("token view by keyboard", FULL, ledger_by_keyboard),
    Check("token view by mouse", FULL, ledger_by_mouse),
    Check("another estimator", FULL, other_estimator),
    Check("token strip by keyboard", FULL, token_strip),
    Check("strongest cells as a table", FULL, strongest_cells),
    Check("circuit: threshold by keyboard", FULL, circuit_slider),
    Check("circuit: hover and pin by mouse", FULL, circuit_by_mouse),
    Check("circuit: pin by keyboard, let go by Escape", FULL, circuit_by_keyboard),
    Check("a latent leads to its card", FULL, latent_to_card),
    Check("cards have histograms, shaded tokens and spaces", FULL, cards_are_drawn),
    Check("a user's label is everywhere", "labelled", label_everywhere),
    Check("a question opens and closes by keyboard", FULL, question_by_keyboard),
    Check("a tick opens its question by mouse", FULL, question_by_mouse),
    *(
        Check(f"questions: {name}", FULL, question_filter(name))
        for name in ("all", "flipped", "got worse", "true statements")
    ),
    Check("questions of another condition", FULL, other_condition),
    Check("the page comes back from its address", FULL, from_its_address),
    Check("every link of the navigation leads to its section", FULL, navigation),
    Check("navigation without SAE", "without SAE", navigation),
    Check("save SVG by keyboard", FULL, saved("svg", True)),
    Check("save PNG by mouse", FULL, saved("png", False)),
    Check("save CSV by mouse", FULL, saved("csv", False)),
    Check("the first column of the table stays", FULL, first_column_stays, 768),
    Check("the table scrolls by keyboard", FULL, table_scrolls_by_keyboard, 768),
    Check(
        "without SAE: no latents",
        "without SAE",
        lambda seen: expect(absent=seen.page.locator(".latent").count() == 0),
    ),
    Check("without attribution: no token view", "without attribution", lacks("#tokens", "Token by token")),
    Check(
        "without attribution: no prompts of a search", "without attribution", lacks("#frontier", "Prompts")
    ),
    Check("an overview links every report", "several runs", overview_links),
    Check("real language in its own words", "real language", real_words),
    Check("the report of a run with every section is at most 1 MB", FULL, is_small(1_000_000)),
    Check("the report of real language is at most 1 MB", "real language", is_small(1_000_000)),
]


@pytest.fixture(scope="module")
def pages(real_run, organism, tmp_path_factory) -> ReportPages:
    return ReportPages(tmp_path_factory.mktemp("pages"), real_run, run, organism)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_check(browser, pages, check):
    tab = Tab(browser.new_page())
    tab.page.emulate_media(forced_colors="active" if check.forced else "none")
    tab.open(pages.page(check.kind), width=check.width, scheme=check.scheme)
    wrong = check.look(Seen(tab, pages, check.kind))
    tab.page.close()
    assert wrong == [] and tab.trouble == []


def test_there_are_at_least_sixty_checks_of_different_names():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) >= 60
