"""The panel in JupyterLab: a server on loopback, a notebook run in a real browser, a prompt typed, the ledger seen to change."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.browser import needs_chromium, open_browser, trouble_of
from tests.support.jupyterlab_server import jupyterlab, run_cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_chromium]
CELL = """import workbench as wb
model, persona = wb.load_model("organism"), wb.load_persona("sycophancy")
sae = wb.load_sae("organism")
contexts = wb.make_contexts(model, persona.split(seed=0).search, n=4)
wb.Panel(model, persona, latents=[wb.latent_activation(sae, [3])], contexts=contexts, prompt="be blunt", live=True)"""


def test_typing_in_jupyterlab_changes_the_ledger(tmp_path):
    with (
        jupyterlab(tmp_path, CELL) as (address, notebook),
        open_browser(tmp_path / "profile", offline=False) as browser,
    ):
        browser.set_default_timeout(300_000)
        page = browser.new_page()
        trouble = trouble_of(page, warnings=False)
        run_cell(page, address)
        field = page.locator(".wb-panel textarea").first
        field.wait_for()
        tokens = page.locator(".wb-panel .side").first.locator(".strip button span")
        page.wait_for_function(
            "document.querySelector('.wb-panel').shadowRoot.querySelectorAll('.strip button').length === 2",
            polling=200,
        )
        assert tokens.all_text_contents() == ["be", "blunt"]
        before = page.locator(".wb-panel .matrix td").all_text_contents()
        field.click()
        page.keyboard.press("End")
        page.keyboard.type(" and critical", delay=30)
        page.wait_for_function(
            "document.querySelector('.wb-panel').shadowRoot.querySelectorAll('.strip button').length === 4",
            polling=200,
        )
        assert tokens.all_text_contents() == ["be", "blunt", "and", "critical"]
        assert page.locator(".wb-panel .matrix td").all_text_contents() != before
        assert page.locator(".jp-CodeCell").count() <= 2, (
            "letters typed into the field did not act as the notebook's shortcuts"
        )
        assert not page.locator("[class^=wb-kept]").is_visible()
        # what the notebook keeps follows, hidden while the panel lives
        page.wait_for_function(
            "document.querySelector('[class^=wb-kept]').textContent.includes('be blunt and critical')",
            polling=200,
        )
        page.screenshot(path=str(tmp_path / "lab.png"))
        page.keyboard.press("Control+s")
        end = time.monotonic() + 120
        while "be blunt and critical" not in notebook.read_text() and time.monotonic() < end:
            page.wait_for_timeout(500)
    outputs = json.loads(notebook.read_text())["cells"][0]["outputs"]
    kept = ["".join(output["data"].get("text/html", "")) for output in outputs if "data" in output]
    assert any("Prompt: be blunt and critical" in html for html in kept)
    assert [
        line for line in trouble if "panel" in line.lower() or "widget" in line.lower() or "TypeError" in line
    ] == [], trouble
