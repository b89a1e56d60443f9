"""Ten questions of a newcomer: each has its answer on the named page, at most two clicks from the front page and from the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
QUESTIONS = yaml.safe_load(Path(__file__).with_name("newcomer_questions.yaml").read_text(encoding="utf-8"))
_LINK = re.compile(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)")


def linked(page: Path) -> set[Path]:
    """The pages that a page's text links to."""
    return {(page.parent / target).resolve() for target in _LINK.findall(page.read_text(encoding="utf-8"))}


def clicks(start: Path, most: int = 2) -> dict[Path, int]:
    """Pages that are reached from the start by links in the text, with the number of clicks."""
    found, edge = {start: 0}, {start}
    for distance in range(1, most + 1):
        edge = {page for one in edge for page in linked(one) if page.is_file()} - set(found)
        found |= dict.fromkeys(edge, distance)
    return found


@pytest.fixture(scope="module")
def distances() -> tuple[dict[Path, int], dict[Path, int]]:
    return clicks(DOCS / "index.md"), clicks(ROOT / "README.md")


def test_clicks_are_counted(tmp_path: Path):
    for name, text in {"a": "[b](b.md#x)", "b": "[c](c.md) [a](a.md)", "c": "[d](d.md)", "d": ""}.items():
        (tmp_path / f"{name}.md").write_text(text)
    assert {page.stem: n for page, n in clicks(tmp_path / "a.md").items()} == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry["question"])
def test_the_answer_is_on_the_page_and_two_clicks_away(entry: dict[str, str], distances):
    page = DOCS / entry["page"]
    assert entry["answer"] in re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    site, readme = distances
    assert page in site and (page in readme or entry["page"] == "index.md"), (
        "the README begins as the front page does"
    )
