"""The panel's ES module in a plain page without a network, by anywidget's contract render({model, el}): a model object of the page
passes what is typed to a real `Panel`, as a kernel would."""
# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

import workbench as wb
from tests.support.browser import axe_violations, needs_axe, needs_chromium, trouble_of
from tests.support.hostile_strings import FOUND, hostile
from workbench.panel import Panel, PanelOptions
from workbench.runs import RunDirectory, write_run_file
from workbench.schema import LatentEntry, LatentsFile

pytestmark = needs_chromium
MOUNT = """async ([code, state]) => {
  const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const heard = {};
  window.model = {
    state, get: (key) => state[key], save_changes: () => {}, off: () => {},
    on: (name, what) => { (heard[name] ??= []).push(what); },
    set: (key, value) => { state[key] = value; for (const what of heard[`change:${key}`] ?? []) what(); },
    send: async (message) => {
      const next = await window.kernel(message);
      for (const key of ["about", "firing", "difference", "readings"]) window.model.set(key, next[key]);
    },
  };
  window.stop = module.default.render({ model: window.model, el: document.getElementById("cell") });
}"""
HOSTILE = ["</script>", "<img src=x onerror=alert(1)>", "⟨U+0000⟩⟨U+202E⟩", "&lt;", "😀", "a" * 10_000]


class Bed:
    """A page with a panel in it, its kernel, and everything that must not happen noted down."""

    def __init__(self, page, panel: Panel) -> None:
        self.page, self.panel, self.trouble = page, panel, trouble_of(page)
        page.expose_function("kernel", self.answer)

    def answer(self, message: dict) -> dict:
        self.panel._on_message(self.panel, message, [])
        return {key: getattr(self.panel, key) for key in ("readings", "difference", "about", "firing")}

    def mount(
        self, readings: list | None = None, ground: str = "#fff", width: int = 1100, about: dict | None = None
    ) -> Bed:
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.set_content(
            f'<!doctype html><meta charset="utf-8"><body style="margin:8px;background:{ground}"><div id="cell"></div>'
        )
        state = {
            key: copy.deepcopy(getattr(self.panel, key))
            for key in ("about", "comparing", "readings", "difference", "progress", "firing")
        }
        self.page.evaluate(
            MOUNT,
            [
                str(self.panel._esm),
                state | ({"readings": readings} if readings else {}) | ({"about": about} if about else {}),
            ],
        )
        return self

    def type(self, text: str, side: int = 0) -> None:
        field = self.page.locator("textarea").nth(side)
        field.fill(text)
        self.page.wait_for_function(
            "([i, text]) => { const r = window.model.state.readings[i]; return r.text === text && r.ask }",
            arg=[side, text],
            polling=50,
        )

    def tokens(self, side: int = 0) -> list[str]:
        return self.page.locator(".side").nth(side).locator(".strip button span").all_text_contents()


@pytest.fixture(scope="module")
def panel(organism) -> Panel:
    persona, sae = wb.load_persona("sycophancy"), wb.load_sae("organism")
    contexts = wb.make_contexts(organism, persona.split(seed=0).search, n=4, seed=0)
    latents = {f"latent {i}": wb.latent_activation(sae, [i]) for i in range(4)}
    return Panel(organism, persona, latents=list(latents.values()), contexts=contexts, quick=2, live=True)


@pytest.fixture
def bed(browser, panel) -> Iterator[Bed]:
    made = Bed(browser.new_page(), panel)
    yield made
    made.page.close()
    assert made.trouble == []


def test_the_ledger_follows_what_is_typed(bed):
    page = bed.mount().page
    bed.type("be blunt")
    assert bed.tokens() == ["be", "blunt"]
    before = page.locator(".matrix td").all_text_contents()
    bed.type("be blunt and critical")
    assert (
        bed.tokens() == ["be", "blunt", "and", "critical"]
        and page.locator(".matrix td").all_text_contents() != before
    )
    assert (
        page.locator(".line")
        .first.inner_text()
        .startswith("Quick: removing the token (exact), 2 contexts, no intervals;")
    )
    assert float(page.locator(".side").first.get_attribute("data-ms")) > 0
    assert (
        page.locator(".whole tbody tr").count() == 5
        and "seems to" not in page.locator(".detail").first.inner_text()
    )
    page.locator(".buttons button:visible").first.click()
    page.wait_for_function("window.model.state.readings[0].ledger.exact", polling=50)
    assert (
        "95 % intervals" in page.locator(".line").first.inner_text()
        and " to " in page.locator(".odds").first.inner_text()
    )


def test_an_error_is_a_line_and_the_last_reading_stays(bed):
    page = bed.mount().page
    bed.type("be blunt")
    bed.type("be blunt qqqzzz")
    assert (
        page.locator(".line").first.inner_text().startswith("✕ the model's vocabulary does not have 'qqqzzz'")
    )
    assert page.locator("textarea").first.get_attribute("aria-invalid") == "true" and bed.tokens() == [
        "be",
        "blunt",
    ]
    bed.type("be critical")
    assert page.locator("textarea").first.get_attribute("aria-invalid") == "false" and bed.tokens() == [
        "be",
        "critical",
    ]


def test_two_prompts_side_by_side(bed):
    page = bed.mount().page
    bed.type("be blunt")
    page.get_by_role("button", name="Compare with a second prompt").click()
    bed.type("you are a friendly helper", side=1)
    heads = page.locator(".whole thead th").all_text_contents()
    assert heads == ["quantity", "no prompt", "A", "A − none", "B", "B − none", "B − A"]
    boxes = [page.locator(".side").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.get_by_role("button", name="One prompt only").click()
    assert not page.locator(".side").nth(1).is_visible()


def test_by_keyboard_and_with_names_for_a_screen_reader(bed):
    page = bed.mount().page
    bed.type(
        "be"
    )  # the panel still has "be blunt" from the test before: what follows must wait for a reading of its own
    bed.type("be blunt")
    assert (
        page.get_by_label("Prompt A").count()
        and page.get_by_role("grid").count() == 1
        and page.locator(".side .line[role=status]").count() == 2
    )
    page.locator(".matrix td").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert (
        "blunt" in page.locator(".detail h3").first.inner_text()
        and page.locator("td[aria-selected=true]").count() == 1
    )
    page.keyboard.press("Escape")
    assert page.locator("td[aria-selected=true]").count() == 0
    assert page.locator(".wb-panel").get_attribute("data-lm-suppress-shortcuts") == "true"


def test_every_string_of_the_panels_state_is_text(bed, panel):
    panel._on_message(panel, {"kind": "read", "side": 0, "text": "be blunt", "ask": "1"}, [])
    page = bed.mount(hostile(copy.deepcopy(panel.readings)), about=hostile(copy.deepcopy(panel.about))).page
    found = page.evaluate(FOUND)
    assert found["texts"] > 10 and (found["ran"], found["scripts"], found["images"], found["handlers"]) == (
        0,
        0,
        0,
        0,
    )


def test_hostile_tokens_are_text(bed, panel):
    panel.read("be blunt and critical you are")
    readings = copy.deepcopy(panel.readings)
    readings[0]["ledger"]["tokens"] = HOSTILE
    readings[0]["error"], readings[0]["text"] = HOSTILE[1], HOSTILE[0]
    for target, name in zip(readings[0]["ledger"]["targets"], HOSTILE):
        target["name"] = target["label"] = name
    page = bed.mount(readings).page
    assert (
        bed.tokens() == HOSTILE
        and page.locator("img, script").count() == 0
        and page.locator("textarea").first.input_value() == HOSTILE[0]
    )
    assert page.locator(".line").first.inner_text() == f"✕ {HOSTILE[1]}"


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize(("ground", "theme"), [("#111", "dark"), ("#fff", "light")])
def test_it_takes_the_notebooks_ground_and_fits(bed, ground, theme, width):
    page = bed.mount(ground=ground, width=width).page
    bed.type("be blunt and critical you are a friendly helper")
    assert page.locator(".wb-panel").get_attribute("data-theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@needs_axe
@pytest.mark.parametrize("ground", ["#111", "#fff"])
def test_axe_finds_nothing(bed, ground):
    """Two prompts, one of them with an error, a kept cell; rules about whole pages do not count in a notebook's cell."""
    page = bed.mount(ground=ground).page
    bed.type("be blunt and critical")
    page.get_by_role("button", name="Compare with a second prompt").click()
    bed.type("you are a friendly helper", side=1)
    bed.type("be blunt qqqzzz")
    page.locator(".matrix td").first.focus()
    page.keyboard.press("Enter")
    page.evaluate(
        "for (const fold of document.querySelector('.wb-panel').shadowRoot.querySelectorAll('details')) fold.open = true"
    )
    whole_page = ("document-title", "html-has-lang", "landmark-one-main", "page-has-heading-one", "region")
    assert [line for line in axe_violations(page) if not line.startswith(whole_page)] == []


def test_what_the_notebook_keeps_is_hidden_while_the_panel_lives(bed, panel):
    page = bed.mount().page
    page.evaluate(
        "name => document.body.append(Object.assign(document.createElement('div'), { className: name, textContent: 'kept' }))",
        panel.about["kept"],
    )
    assert not page.get_by_text("kept", exact=True).is_visible()
    page.evaluate("window.stop()")
    assert page.get_by_text("kept", exact=True).is_visible()


def test_it_follows_jupyterlabs_theme_and_hands_saving_to_the_notebook(bed):
    page = bed.mount().page
    theme = "document.querySelector('.wb-panel').dataset.theme"
    for light, expected in (("false", "dark"), ("true", "light")):
        page.evaluate(f"document.body.dataset.jpThemeLight = '{light}'")
        page.wait_for_function(f"{theme} === '{expected}'", polling=50)
    outside = "window.asked = e.target.closest('.wb-panel') === null"
    page.evaluate(
        f"addEventListener('keydown', (e) => {{ if (e.key === 's' && e.ctrlKey && !e.isTrusted) {outside} }})"
    )
    field = page.locator("textarea").first
    field.focus()
    page.keyboard.press("Control+s")
    assert page.evaluate("window.asked") is True and field.input_value() == page.evaluate(
        "window.model.state.readings[0].text"
    )


def test_two_prompts_share_one_colour_scale(bed):
    """The same effect has the same colour in A and in B: fractions of the larger of both peaks, row by row."""
    page = bed.mount().page
    bed.type("be blunt")
    page.get_by_role("button", name="Compare with a second prompt").click()
    bed.type("you are a friendly helper", side=1)
    largest = "Math.max(...row.map((c) => Math.abs(c?.[0] ?? 0)))"
    read = f"window.model.state.readings.map(({{ ledger }}) => ledger.cells.removal.map((row) => {largest}))"
    peaks = page.evaluate(read)
    shade = """[...document.querySelectorAll('.wb-panel')].map((p) => [...p.shadowRoot.querySelectorAll('.side')].map((side) =>
      [...side.querySelectorAll('.matrix tbody tr')].map((tr) => Math.max(...[...tr.querySelectorAll('td')].map((td) =>
        Number(td.style.getPropertyValue('--v')))))))[0]"""
    for a, b, first, second in zip(*peaks, *page.evaluate(shade), strict=True):
        most = max(a, b)
        if most > 1e-9:
            assert first == pytest.approx((a / most) ** 0.8, abs=1e-6) and second == pytest.approx(
                (b / most) ** 0.8, abs=1e-6
            )


def test_a_text_of_ones_own_on_a_latent(bed, organism):
    """Each token's activation, as `latent_firing` reads it; what the model cannot read is one line."""
    page = bed.mount().page
    page.locator(".own summary").click()
    page.locator("#own-latent").select_option("2")
    page.locator("#own-text").fill("you are the honest judge")
    page.get_by_role("button", name="Where does it fire?").click()
    page.wait_for_selector(".fire")
    expected = wb.latent_firing(organism, wb.load_sae("organism"), 2, "you are the honest judge")
    assert page.locator(".fire code").all_text_contents() == list(expected.tokens)
    shown = [float(text or 0) for text in page.locator(".fire small").all_text_contents()]
    assert shown == pytest.approx([round(value, 1) for value in expected.activations], abs=0.051)
    page.locator("#own-text").fill("qqqzzz <img src=x onerror=alert(1)>")
    page.locator("#own-text").press("Control+Enter")
    page.wait_for_selector(".own .line.bad")
    assert page.locator(".fire").count() == 0 and page.locator("img").count() == 0
    assert page.get_by_label("Its name").count() == 0 or not page.get_by_label("Its name").is_visible(), (
        "no run, nowhere to keep a name"
    )


def test_a_latents_name_is_kept_in_the_run_and_shown_at_once(browser, organism, tmp_path):
    run = RunDirectory.create(tmp_path / "run").path
    write_run_file(
        run / "latents.json", LatentsFile(sae="organism", latents=[LatentEntry(latent=i) for i in range(4)])
    )
    persona, sae = wb.load_persona("sycophancy"), wb.load_sae("organism")
    contexts = wb.make_contexts(organism, persona.split(seed=0).search, n=4, seed=0)
    latents = [wb.latent_activation(sae, [i]) for i in (0, 1)]
    bed = Bed(
        browser.new_page(),
        Panel(
            organism,
            persona,
            latents=latents,
            contexts=contexts,
            quick=2,
            live=True,
            options=PanelOptions(run=run),
        ),
    )
    page = bed.mount().page
    bed.type("be blunt")
    page.locator(".own summary").click()
    page.locator("#own-latent").select_option("1")
    page.get_by_label("Its name").fill("says <b>no</b>")
    page.get_by_role("button", name="Keep in the run").click()
    page.wait_for_function("window.model.state.about.latents[1].label !== ''", polling=50)
    assert wb.latent_labels(run) == {1: "says <b>no</b>"}
    assert (
        "latent 1 · says <b>no</b>" in page.locator(".matrix tbody th").all_text_contents()
        and page.locator("b:text-is('no')").count() == 0
    )
    page.get_by_label("Its name").fill("x" * 300)
    assert len(page.get_by_label("Its name").input_value()) == 200
    page.close()
    assert bed.trouble == []
    again = Panel(organism, persona, latents=latents, contexts=contexts, options=PanelOptions(run=run))
    assert again.about["latents"][1]["label"] == "says <b>no</b>"
