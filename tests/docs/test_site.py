"""The built site: every link and picture leads somewhere, nothing is loaded from another host, and both themes are there."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.paths import ROOT


class Page(HTMLParser):
    """Ids, links and loaded files of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.schemes: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.schemes |= (
            {values["data-md-color-scheme"]} & {"default", "slate"}
            if "data-md-color-scheme" in values
            else set()
        )
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "source", "iframe") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and "stylesheet" in values.get("rel", "") + values.get("as", ""):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path) for path in out.rglob("*.html") if path.name != "404.html"}


def missing(path: Path, target: str, site: dict[Path, Page]) -> bool:
    """True where a relative link of the page leads to no file, or to no id in it."""
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//") or target == "#":
        return False
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    file = file / "index.html" if file.is_dir() else file
    return not file.is_file() or bool(
        parts.fragment and file in site and unquote(parts.fragment) not in site[file].ids
    )


def test_lint_refuses_a_page_with_a_warning(tmp_path: Path):
    """The options of `make lint`: with `--quiet` mkdocs counts no warning, and a broken link passes."""
    options = re.findall(r"mkdocs build ([^#\n]*)", (ROOT / "Makefile").read_text().partition("\nlint:")[2])[
        0
    ].split()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[nowhere](missing.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: broken\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "missing.md" in done.stderr


def test_every_link_and_picture_of_the_site_leads_somewhere(site: dict[Path, Page]):
    assert len(site) > 40 and sum(len(page.links) for page in site.values()) > 2000
    checked = {path: page for path, page in site.items() if "gallery" not in path.parts}
    wrong = {
        (path.parent.name, link)
        for path, page in checked.items()
        for link in [*page.links, *page.loaded]
        if missing(path, link, site)
    }
    assert wrong == set()


def test_nothing_is_loaded_from_another_host(site: dict[Path, Page]):
    foreign = {link for page in site.values() for link in page.loaded if urlsplit(link).netloc}
    assert foreign == set()


def test_both_themes_can_be_chosen(site: dict[Path, Page]):
    front = site[min(site, key=lambda path: len(path.parts))]
    assert front.schemes == {"default", "slate"}
