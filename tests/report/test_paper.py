"""A run for a paper: figures of the stated width with embedded fonts, texts that LaTeX prints as they are, one line for what is missing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.support.browser import needs_chromium
from tests.support.real_run import read_entry
from workbench.errors import UserError
from workbench.report.paper import export_paper
from workbench.report.paper.print_style import points_of
from workbench.report.paper.tables import latex, markdown_table

FIGURES = {"forest", "questions", "frontier_resga", "frontier_saega", "layers", "ledger", "mediation", "dose"}


def test_every_figure_of_a_run_has_the_stated_width_and_embedded_fonts(make_run, tmp_path):
    run = make_run()
    found = export_paper(run, tmp_path / "out", width="3.3in", formats="pdf,svg")
    names = {path.name for path in found.written}
    assert {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "svg")} <= names and found.left_out == ()
    for path in found.written:
        if path.suffix == ".svg":
            root = ET.fromstring(path.read_bytes())
            assert float(root.get("width")) == pytest.approx(3.3 * 72, abs=2), path.name
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert content.startswith(b"%PDF") and b"/FontFile" in content, path.name
    paragraph = (tmp_path / "out" / "methods.tex").read_text()
    cited = set(re.findall(r"\\cite\{(\w+)\}", paragraph))
    assert cited == set(
        re.findall(r"^@\w+\{(\w+),", (tmp_path / "out" / "references.bib").read_text(), flags=re.M)
    )
    assert "epo" in cited and not re.search(r"(?<!\\)[%&#_](?![\w]*\})", paragraph)
    rows = [line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(read_entry(run, "comparison.json")["conditions"])


OUTSIDE = """[...document.querySelectorAll('svg text')].filter((text) => text.textContent.trim()).map((text) => [text.textContent,
  text.getBoundingClientRect(), document.querySelector('svg').getBoundingClientRect()]).filter(([, own, all]) =>
  own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1 || own.bottom > all.bottom + 1).map(([text]) => text)"""


@needs_chromium
@pytest.mark.parametrize("width", ["3.3in", "6.9in"])
def test_no_text_leaves_a_figure_and_a_quantity_has_one_legend(browser, make_run, tmp_path, width):
    """Seen in print: the last token of the ledger and the second legend of the layers were cut."""
    run = make_run()
    found = export_paper(run, tmp_path / "out", width=width, formats="svg")
    page = browser.new_page()
    for path in found.written:
        if path.suffix == ".svg":
            page.set_content(path.read_text())
            assert page.evaluate(OUTSIDE) == [], path.name
    page.close()
    texts = {
        path.stem: re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text())
        for path in found.written
        if path.suffix == ".svg"
    }
    assert texts["layers"].count("method") == 1 and texts["dose"].count("the prompt's first tokens") == 1
    assert "Prompts of the search RESGA" in texts["frontier_resga"]
    assert re.search(
        r"The searches RESGA \(.* FLOPs\), .* used EPO", (tmp_path / "out" / "methods.tex").read_text()
    )


def test_what_the_run_has_no_data_for_is_one_line_each(make_run, tmp_path):
    run = make_run(
        without=("attribution.parquet", "attribution.json", "evaluation.parquet", "direction.json")
    )
    found = export_paper(run, tmp_path / "out", formats="svg")
    assert {line.partition(":")[0] for line in found.left_out} == {
        "questions",
        "layers",
        "ledger",
        "mediation",
        "dose",
    }
    assert all("\n" not in line for line in found.left_out) and "forest.svg" in {
        path.name for path in found.written
    }


def test_hostile_texts_are_in_the_tables_as_text(make_run, tmp_path):
    export_paper(make_run(hostile=True), tmp_path / "out", formats="svg")
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert "<script>" not in (tmp_path / "out" / "table.md").read_text() and tex.count(r"\\") >= 10
    assert (
        latex("100 % of a_b & \\c{d}") == r"100 \% of a\_b \& \textbackslash{}c\{d\}"
        and latex("-0.5 to 1-2") == "$-$0.5 to 1-2"
    )
    assert markdown_table([("a|b", *[""] * 6)], "c").splitlines()[2].startswith(r"| a\|b |")


@pytest.mark.parametrize(
    ("width", "points"), [("3.3in", 237.6), ("10 cm", 283.46), ("84mm", 238.11), ("238pt", 238.0)]
)
def test_widths(width, points):
    assert points_of(width) == pytest.approx(points, abs=0.01)


WRONG = (
    ({"width": "3"}, "width"),
    ({"width": "2in"}, "inches"),
    ({"formats": "pdf,gif"}, "gif"),
    ({"formats": ""}, "format"),
    ({"style": "poster"}, "poster"),
    ({"run": "nowhere"}, "no directory at nowhere"),
    ({}, "holds no file of a run"),
)


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_a_wrong_option_is_the_users_mistake_and_writes_nothing(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        export_paper(**({"run": tmp_path, "out": tmp_path / "out"} | changes))
    assert not (tmp_path / "out").exists()
