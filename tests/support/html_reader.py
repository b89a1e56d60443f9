"""Pages as a browser's parser finds them: elements, inline scripts and styles, text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from workbench.report import write_report


class HtmlReader(HTMLParser):
    """Elements, attributes and inline script and style texts, as a browser's parser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self._at = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._at = tag
        if tag in self.inline:
            self.inline[tag].append("")

    def handle_endtag(self, tag):
        self._at = ""

    def handle_data(self, data):
        if self._at in self.inline:
            self.inline[self._at][-1] += data
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def data(self) -> dict:
        return json.loads(self.inline["script"][0])


def read_report(directory: Path) -> HtmlReader:
    return HtmlReader(write_report(directory).read_text(encoding="utf-8"))
