"""A running search seen in JupyterLab: the frontier is drawn again in place while the cell runs, and stays when it has ended."""

from __future__ import annotations

import json

import pytest

from tests.support.browser import needs_chromium, open_browser, trouble_of
from tests.support.jupyterlab_server import jupyterlab, run_cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_chromium]
CELL = """import workbench as wb
from workbench.budget import Budget
model, split = wb.load_model("organism"), wb.load_persona("sycophancy").split(seed=0)
contexts = wb.make_contexts(model, split.search, n=4)
goal = wb.answer_log_odds() * -1
found = wb.search(model, goal, contexts, wb.EPO(), Budget(seconds=25), on_step=wb.LiveFrontier(every=0.2))
print("ended")"""


def test_the_frontier_is_drawn_again_in_place(tmp_path):
    with (
        jupyterlab(tmp_path, CELL) as (address, notebook),
        open_browser(tmp_path / "profile", offline=False) as browser,
    ):
        browser.set_default_timeout(300_000)
        page = browser.new_page()
        trouble = trouble_of(page, warnings=False)
        run_cell(page, address)
        picture = page.locator(".jp-OutputArea svg[role=img]")
        picture.wait_for()
        line = page.locator(".jp-OutputArea-output div", has_text="candidates/s").last
        first = line.inner_text()
        page.screenshot(path=str(tmp_path / "running.png"))
        assert "left" in first and page.get_by_text("ended", exact=True).count() == 0, (
            "drawn while the search runs"
        )
        page.wait_for_function(
            "first => !document.querySelector('.jp-OutputArea').innerText.includes(first)",
            arg=first,
            polling=100,
        )
        assert line.inner_text().split(" ")[1] > "0" and picture.count() == 1, "in place: one picture"
        page.get_by_text("ended", exact=True).wait_for()
        assert picture.count() == 1 and picture.locator("circle").count() >= 1
        page.screenshot(path=str(tmp_path / "ended.png"))
        page.keyboard.press("Control+s")
        page.wait_for_timeout(3000)
    shown = [output for output in json.loads(notebook.read_text())["cells"][0]["outputs"] if "data" in output]
    assert len(shown) == 1 and "<svg" in "".join(shown[0]["data"]["text/html"]), (
        "what the notebook keeps is the last picture"
    )
    assert [line for line in trouble if "TypeError" in line or "live" in line.lower()] == [], trouble
