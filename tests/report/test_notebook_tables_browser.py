"""Tables of results under JupyterLab's own rules for HTML outputs, in a real browser: whole words, text to the left, wide tables scroll."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.support.browser import Tab, needs_chromium
from workbench.html_text import html_table

pytestmark = needs_chromium
#: The rules of @jupyterlab/rendermime's base.css that reach a table in an output.
JUPYTERLAB = """
.jp-RenderedHTMLCommon table{border-collapse:collapse;border:none;font-size:12px;table-layout:fixed;margin-left:auto;margin-right:auto}
.jp-RenderedHTMLCommon td,.jp-RenderedHTMLCommon th,.jp-RenderedHTMLCommon tr{vertical-align:middle;padding:.5em;white-space:normal;max-width:none}
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td,:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon th{text-align:right}
"""
FRAME = pd.DataFrame(
    {
        "layer": [0, 1],
        "method": ["mean_difference", "own_choice_within"],
        "predicts": [0.98765, -0.5],
        "auc": [1.0, 0.5],
        "verdict": ["the direction predicts what prompts do", "not shown"],
        "prompt": ["honest evidence heavy quick snow heavy coldly strict", "x" * 300],
    }
)
#: Words whose letters are not all on one line.
BROKEN = """[...document.querySelectorAll('td,th')].flatMap((cell) => { const node = cell.firstChild; if (!node) return [];
  return [...node.textContent.matchAll(/\\S+/g)].filter((word) => { const range = document.createRange();
    range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
    return new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1; }).map((word) => word[0]); })"""


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_words_stay_whole_and_text_is_to_the_left(browser, tmp_path, width):
    page_file = tmp_path / "cell.html"
    output = f'<div class="jp-RenderedHTMLCommon jp-RenderedHTML">{html_table(FRAME, "Scan")}</div>'
    page_file.write_text(
        f"<!doctype html><meta charset=utf-8><style>{JUPYTERLAB}</style><body style='width:{width - 40}px'>{output}"
    )
    tab = Tab(browser.new_page())
    page = tab.open(page_file, width=width).page
    assert [word for word in page.evaluate(BROKEN) if len(word) < 100] == []
    aligned = page.evaluate(
        "[...document.querySelectorAll('tbody tr:first-child td')].map((td) => getComputedStyle(td).textAlign)"
    )
    assert aligned == ["right", "left", "right", "right", "left", "left"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, (
        "a wide table scrolls in its own box"
    )
    page.close()
    assert tab.trouble == []
