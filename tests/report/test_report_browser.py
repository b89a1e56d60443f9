"""The report in a real browser without a network: no error, nothing executes, every view by mouse and by keyboard."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import csv
import io
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pandas as pd
import pytest

from tests.support.browser import Tab, axe_violations, needs_axe, needs_chromium, wait_until
from tests.support.hostile_strings import FOUND, PAYLOAD, make_every_string_hostile
from tests.support.real_run import HOSTILE, edit, read_entry
from workbench.comparison import claims_of_run, questions_of_run
from workbench.conditions import condition_label as label
from workbench.html_text import shorten, visible
from workbench.report import OverviewRun, write_overview, write_report

NOTHING = {"ran": 0, "scripts": 0, "images": 0, "handlers": 0}
LOCAL = ("file:", "blob:", "data:", "about:")
pytestmark = needs_chromium


@pytest.fixture
def tab(browser) -> Iterator[Tab]:
    opened = Tab(browser.new_page())
    yield opened
    opened.page.close()
    assert opened.trouble == []


def test_hostile_tokens_are_text(tab, make_run):
    path = write_report(make_run(hostile=True, tokens=len(HOSTILE), latents=20))
    page = tab.open(path).page
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.wait_for_selector("#layers svg")
    assert page.locator("#strip button span").all_text_contents() == [
        shorten(visible(token), 120) for token in HOSTILE
    ]
    assert page.title().startswith("Which prompt makes the organism")
    assert page.locator("script").count() == 2 and page.locator("img, iframe, object, link").count() == 0
    page.locator("#strip button").first.hover()
    assert "</script>" in page.locator("#detail").inner_text()


def test_every_string_of_every_file_is_text(tab, make_run):
    """In the report (its frontier section, its questions and its cards opened) and in the overview."""
    run = make_every_string_hostile(make_run())
    page = tab.open(write_report(run)).page
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    wait_until(page, "document.querySelector('#scatter svg') !== null")
    page.locator("#scatter [tabindex], #scatter circle").first.hover()
    found = page.evaluate(FOUND)
    assert (
        found["texts"] > 100
        and {name: found[name] for name in ("ran", "scripts", "images", "handlers")} == NOTHING
    )
    assert (
        page.locator("script").count() == 2
        and "<img src=x" in page.locator("#frontier, section:has(#scatter)").first.inner_text()
    )
    shown = [
        OverviewRun(run, f"one {PAYLOAD}"),
        OverviewRun(run.parent / "gone", f"other {PAYLOAD}", "failed", PAYLOAD),
    ]
    page.goto(write_overview(shown, run / "overview.html", PAYLOAD).as_uri())
    found = page.evaluate(FOUND)
    assert (
        found["texts"] > 5
        and {name: found[name] for name in ("ran", "scripts", "images", "handlers")} == NOTHING
    )
    assert page.locator("script").count() == 0


def test_the_policy_forbids_what_the_page_did_not_bring(browser, make_run):
    page = browser.new_page()
    page.goto(write_report(make_run()).as_uri())
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s)"
    )
    assert page.evaluate("window.ran") is None
    assert page.evaluate("fetch('https://example.org').then(() => 'went', () => 'blocked')") == "blocked"
    page.close()


@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.slow)])
@pytest.mark.parametrize("hostile", [pytest.param(False, marks=pytest.mark.slow), True])
def test_nothing_overflows(tab, make_run, width, hostile):
    page = tab.open(
        write_report(make_run(hostile=hostile, tokens=14, latents=20)), width=width, scheme="dark"
    ).page
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.wait_for_selector("#strips svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, svg, .sr, pre') &&
      e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(beyond) == []
    spilling = """[...document.querySelectorAll(".figures dd, .figures b, .card, button")]
     .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)"""
    assert page.evaluate(f"{spilling}.map((e) => e.outerHTML.slice(0, 80))") == []


def test_the_linked_view_by_keyboard(tab, make_run):
    path = write_report(run := make_run())
    tokens = read_entry(run, "attribution.json")["tokens"]
    page = tab.open(path).page
    page.locator("#matrix td").first.focus()
    for key in ("ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert (
        tokens[1] in page.locator("#detail h3").inner_text()
        and "direction" in page.locator("#detail h3").inner_text()
    )
    page.keyboard.press("Enter")
    assert tab.fragment == "#token=1&target=1" and page.locator("#matrix td[aria-selected=true]").count() == 1
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.c") == "7"
    page.keyboard.press("Escape")
    assert tab.fragment == "" and page.locator("[aria-selected=true]").count() == 0
    page.locator("#strip button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#strip button[aria-pressed=true] span").inner_text() == tokens[1]


def test_the_linked_view_by_mouse_and_from_its_address(tab, make_run):
    path = write_report(run := make_run(latents=20))
    tokens = read_entry(run, "attribution.json")["tokens"]
    page = tab.open(path, "#token=3&target=0&by=gradient_x_input").page
    assert (
        tokens[3] in page.locator("#detail h3").inner_text()
        and "kept" in page.locator("#detail h3").inner_text()
    )
    assert (
        page.locator("[data-controls=ledger] button[aria-pressed=true]").inner_text().startswith("gradient")
    )
    page.locator('#matrix td[data-r="4"][data-c="1"]').hover()
    assert tokens[1] in page.locator("#detail h3").inner_text()
    page.locator("h1").hover()
    assert tokens[3] in page.locator("#detail h3").inner_text()
    page.locator('#matrix td[data-r="4"][data-c="1"]').click()
    assert "token=1" in tab.fragment and "target=4" in tab.fragment
    assert page.locator("#matrix tbody tr").count() == 14
    page.get_by_text("Show 8 more rows").click()
    assert page.locator("#matrix tbody tr").count() == 22 and "rows=all" in tab.fragment


def test_the_ticks_of_a_small_effect_are_told_apart(tab, make_run):
    """Effects of some thousandths once had an axis of -0.0, -0.0, 0.0, +0.0, and figures that touched their intervals."""

    def shrink(entry):
        for difference in (d for c in entry["conditions"] for d in c["differences"]):
            difference["log_odds"], difference["log_odds_ci"] = (
                difference["log_odds"] / 100,
                [end / 100 for end in difference["log_odds_ci"]],
            )

    run = edit(make_run(), "comparison.json", shrink)
    page = tab.open(write_report(run)).page
    labels = page.evaluate(
        "[...document.querySelectorAll('#forest svg > text[text-anchor=middle]')].map((e) => e.textContent)"
    )
    ticks = [text for text in labels if text[:1] in "+−0"]
    assert len(ticks) >= 3 and len(set(ticks)) == len(ticks)
    pairs = """[...document.querySelectorAll('#forest svg g')].map(
     (g) => [...g.querySelectorAll('text')].slice(-2).map((e) => e.getBoundingClientRect()))"""
    boxes = page.evaluate(pairs + ".map((two) => two.map((r) => [r.left, r.right]))")
    rows = [two for two in boxes if len(two) == 2]
    assert len(rows) >= 5 and all(value[1] < interval[0] for value, interval in rows)


def test_an_address_that_makes_no_sense_is_passed_over(tab, make_run):
    page = tab.open(
        write_report(make_run()), "#token=99&target=-1&by=magic&search=nope&pins=7~9|x&scale=<b>"
    ).page
    assert "whole prompt" in page.locator("#detail h3").inner_text()


def test_the_frontier_by_mouse_and_keyboard(tab, make_run):
    page = tab.open(write_report(run := make_run())).page
    n = len(read_entry(run, "search/frontier.json")["searches"]["resga"]["candidates"])
    assert n >= 6 and page.locator("#hovered h3").inner_text() == "RESGA: chosen"
    page.locator("#scatter svg").focus()
    page.keyboard.press("Home")
    assert page.locator("#hovered h3").inner_text() == f"RESGA: prompt 1 of {n}"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#pinned li").count() == 1 and tab.fragment == "#pins=0~1"
    page.locator("#scatter svg").scroll_into_view_if_needed()
    box = page.locator("#scatter svg path.c-fill").nth(5).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#hovered h3").inner_text() == f"RESGA: prompt 6 of {n}"
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#pinned li").count() == 2
    page.get_by_role("button", name="SAEGA", exact=True).click()
    assert page.locator("#hovered h3").inner_text() == "SAEGA: chosen" and "search=SAEGA" in tab.fragment
    page.get_by_role("button", name="Let prompt 1 go").click()
    assert page.locator("#pinned li").count() == 1


def test_the_forest_shows_log_odds_or_points(tab, make_run):
    page = tab.open(write_report(run := make_run())).page
    conditions = read_entry(run, "comparison.json")["conditions"]
    own = next(c for c in conditions if c["name"] == "resga")["differences"][0]
    assert f"{own['log_odds']:+.2f}".replace("-", "−") in page.locator("#forest svg").inner_html()
    page.get_by_role("button", name="percentage points").click()
    assert (
        f"{100 * own['value']:+.0f}".replace("-", "−") in page.locator("#forest svg").inner_html()
        and tab.fragment == "#scale=points"
    )
    assert (
        page.locator("#forest svg")
        .get_attribute("aria-label")
        .startswith(f"Change against no prompt for {len(conditions) - 1}")
    )


def open_questions(tab, run, fragment=""):
    page = tab.open(write_report(run), fragment).page
    page.evaluate("document.querySelector('#every-question').open = true")
    page.wait_for_selector("#questions tbody tr")
    return page


def test_a_row_opens_its_question_by_keyboard_and_a_tick_by_mouse(tab, make_run):
    page = open_questions(tab, run := make_run())
    texts = pd.read_parquet(run / "questions.parquet").query("measure == ''").set_index("question")
    rows = page.locator("#questions tbody tr")
    assert rows.count() == min(25, len(texts))
    first = page.locator("#questions .opens").first
    first.focus()
    page.keyboard.press("Enter")
    card = page.locator("#questions .card.question")
    own = texts.loc[card.locator(".said").inner_text()]
    assert [card.locator("dd").nth(i).inner_text() for i in (0, 1, 4)] == [
        own["matching"],
        own["not_matching"],
        own["group"],
    ]
    assert (
        page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
        and "question=" in tab.fragment
    )
    page.keyboard.press("Enter")
    assert card.count() == 0 and "question=" not in tab.fragment
    tick = page.locator('#strips .tick[data-name="RESGA"]').nth(3)
    tick.scroll_into_view_if_needed()
    box = tick.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert card.count() == 1 and page.locator("#questions select").input_value() == "RESGA"


def test_questions_are_filtered_as_the_files_say(tab, make_run):
    page = open_questions(tab, run := make_run(), "#only=flipped")
    condition = page.locator("#questions select").input_value()
    changes = questions_of_run(run)
    assert label(changes["condition"].iloc[0]) == condition
    counts = {
        "all": len(changes),
        "flipped": int(changes["flipped"].sum()),
        "got worse": int(changes["worse"].sum()),
    }
    for name, count in counts.items():
        page.get_by_role("button", name=f"{name} ({count})", exact=True).click()
        assert page.locator("#questions .opens").count() == min(25, count)
    page.get_by_role("button", name="true statements").click()
    true = set(pd.read_parquet(run / "questions.parquet").query("measure != ''")["question"])
    assert set(page.locator("#questions .opens").all_text_contents()) <= true and "only=true" in tab.fragment


def test_the_first_screen_says_what_is_shown_and_has_an_example(tab, make_run):
    page = tab.open(write_report(run := make_run())).page
    claims = claims_of_run(run)
    marks = {
        text.split()[0] + " " + " ".join(text.split()[1:])
        for text in page.locator(".claims li").all_inner_texts()
    }
    assert len(marks) == 6 and page.locator(".claim.shown").count() == len(claims.named("shown"))
    assert page.locator(".verdict").first.inner_text().endswith(claims.effect_sentence.replace("-", "−"))
    assert page.locator(".example .said").inner_text() in set(
        pd.read_parquet(run / "questions.parquet")["question"]
    )
    assert page.evaluate("document.querySelector('.example').getBoundingClientRect().bottom") < 900
    assert "small transformer" in page.locator("#answer").inner_text()


def test_the_circuit_answers_to_mouse_keyboard_and_slider(tab, make_run):
    page = tab.open(write_report(run := make_run())).page
    circuit = read_entry(run, "attribution.json")["circuit"]
    edges = [edge for edge in circuit["edges"] if abs(edge["share"] or 0) >= 0.04]
    drawn = page.locator("#circuit [data-source]")
    assert drawn.count() == len(edges)
    slider = page.get_by_label("Least fraction of an edge, percent")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    gone = sum(abs(edge["share"]) < 0.10 for edge in edges)
    assert (
        page.locator("#circuit .gone").count() == pytest.approx(gone, abs=1) and "share=0.1" in tab.fragment
    )
    box = page.locator('#circuit [data-id="target:answer log-odds"]')
    box.focus()
    page.keyboard.press("Enter")
    assert (
        box.get_attribute("aria-pressed") == "true"
        and "part=" in tab.fragment
        and page.locator("#circuit .dim").count() > 0
    )
    page.keyboard.press("Escape")
    assert page.locator("#circuit .dim").count() == 0 and "part=" not in tab.fragment


def test_a_latent_leads_to_its_card(tab, make_run):
    page = tab.open(write_report(run := make_run())).page
    latents = [card["latent"] for card in read_entry(run, "cards.json")["cards"]]
    listed = [row["latent"] for row in read_entry(run, "latents.json")["latents"]]
    own = next(latent for latent in reversed(latents) if latent in listed)
    assert page.evaluate(f"document.getElementById('latent-{own}').open") == (own == latents[0])
    page.locator(f'a[href="#latent-{own}"]').click()
    wait_until(page, f"document.getElementById('latent-{own}').open")


@pytest.mark.parametrize("figure", ["forest", "scatter", "matrix", "layers"])
def test_pictures_and_figures_can_be_saved(tab, make_run, tmp_path, figure):
    page = tab.open(write_report(make_run(hostile=True, tokens=14))).page
    saved = {}
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as coming:
            page.locator(f"[data-tools={figure}] [data-export={kind}]").click()
        coming.value.save_as(tmp_path / f"{figure}.{kind}")
        saved[kind] = (tmp_path / f"{figure}.{kind}").read_bytes()
    root = ET.fromstring(saved["svg"])
    assert (
        root.tag.endswith("}svg")
        and b"var(" not in saved["svg"]
        and b"class=" not in saved["svg"]
        and len(list(root.iter())) > 20
    )
    assert all(e.get("fill", "none") == "none" or e.get("fill", "").startswith("#") for e in root.iter())
    assert saved["png"].startswith(b"\x89PNG") and len(saved["png"]) > 3_000
    rows = list(csv.reader(io.StringIO(saved["csv"].decode("utf-8-sig"))))
    assert len({len(row) for row in rows[1:]}) == 1 and not [
        cell for row in rows for cell in row if cell.startswith(("=", "@"))
    ]


def test_themes_and_print(tab, make_run):
    page = tab.open(write_report(make_run()), scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.locator("#theme").click()
    light = page.evaluate(ground)
    assert dark != light and page.locator("#theme").inner_text() == "Theme: light"
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ground) == "rgb(255, 255, 255)" and not page.locator(".controls").first.is_visible()
    assert page.locator("#comparison-table table").is_visible()


def test_a_run_with_nothing_but_a_manifest_opens_without_error(tab, make_run):
    directory = make_run()
    for path in list(directory.rglob("*.*")):
        if path.name != "manifest.json":
            path.unlink()
    page = tab.open(write_report(directory)).page
    assert "no comparison" in page.locator(".verdict").inner_text()


def test_forty_tokens_and_two_hundred_latents_are_drawn_once_and_a_hover_changes_little(tab, make_run):
    page = tab.open(write_report(make_run(tokens=40, latents=200)), "#rows=all").page
    assert page.locator("#matrix td").count() == 40 * 202
    changed = page.evaluate("""() => { const changes = new MutationObserver(() => {});
      changes.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
      const td = document.querySelector('#matrix td[data-r="150"][data-c="30"]');
      td.dispatchEvent(new PointerEvent('pointerover', { bubbles: true })); return changes.takeRecords().length; }""")
    assert 0 < changed < 400, (
        "one row and one column of 8,080 cells (benchmarks/report_speed.py measures the time)"
    )


@needs_axe
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing(browser, make_run, scheme):
    page = (
        Tab(browser.new_page())
        .open(write_report(make_run(hostile=True, tokens=14)), "#token=1&target=1", scheme=scheme)
        .page
    )
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    found = axe_violations(page)
    page.close()
    assert found == []


@needs_axe
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_an_overview_of_hostile_runs_fits_and_axe_finds_nothing(tab, make_run, scheme, width):
    """Two runs of one persona and one of another, made of hostile texts; one that failed with markup as its reason."""
    run = make_run(hostile=True)
    write_report(run)
    for name, persona in (("second", "sycophancy"), ("third", HOSTILE[1])):
        shutil.copytree(run, run.parent / name)
        edit(
            run.parent / name, "comparison.json", lambda entry, persona=persona: entry.update(persona=persona)
        )
    failed = OverviewRun(run.parent / "gone", HOSTILE[0], "failed", HOSTILE[1])
    runs = [run, run.parent / "second", run.parent / "third", failed]
    page = tab.open(write_overview(runs, run.parent / "overview.html"), width=width, scheme=scheme).page
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert (
        page.locator("script, img, iframe, object, link").count() == 0
        and page.locator("svg[role=img]").count() >= 2
    )
    assert (
        page.get_by_role("link", name="report").count() == 3
        and HOSTILE[1] in page.locator("#runs").inner_text()
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert axe_violations(page) == []
