"""Reports of runs that the program made: nothing is missing, and every section is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.html_reader import HtmlReader
from workbench.budget import Budget
from workbench.report.load_run import load_run
from workbench.study import run
from workbench.study.study_presets import demo_study


@pytest.fixture(scope="module")
def demo_run(organism, tmp_path_factory) -> Path:
    """The demo with three steps a search instead of its budget; everything else is the demo's."""
    study = demo_study()
    short = study.search.model_copy(update={"budget": Budget(steps=3)})
    return run(
        study.model_copy(update={"search": short}), tmp_path_factory.mktemp("demo") / "run", model=organism
    ).path


@pytest.mark.parametrize("made", ["real_run", "demo_run"])
def test_the_report_of_a_real_run_lacks_nothing_and_shows_the_search(made, request):
    directory = request.getfixturevalue(made)
    contents, page = load_run(directory), HtmlReader((directory / "report.html").read_text(encoding="utf-8"))
    assert contents.missing == [] and "What this page lacks" not in page.words
    sections = {attributes.get("id") for tag, attributes in page.elements if tag == "section"}
    assert {"answer", "comparison", "frontier", "tokens", "inside"} <= sections
    drawn = page.data()["frontier"]
    assert contents.frontier is not None and len(drawn) == len(contents.frontier.searches) >= 5
    assert drawn["RESGA"]["objective"].startswith("minus the projection on the direction at layer")
    assert all(search["candidates"] for search in drawn.values())
