"""Anything shows as text, and says what is invisible in it. The oracle is Python's own HTML parser."""
# ruff: noqa: RUF001  (typographic signs are meant)

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.html_text import (
    TABLE_STYLE,
    escape,
    html_facts,
    html_table,
    minus,
    number,
    plain_table,
    shorten,
    visible,
)

HOSTILE = [
    "</script><script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<bos>",
    "&lt;",
    "\u202eabc\u202c",
    "\x00",
    "\ud800",
    "' onload='x",
    "a" * 10_000,
    "]]>",
    "<!--",
    "👩\u200d🔬",
    "{{ 7 * 7 }}",
    "\u2028",
]
any_text = st.text(alphabet=st.characters(codec=None), max_size=60) | st.sampled_from(HOSTILE)


class Reader(HTMLParser):
    """Collects what a browser would see: element names, attributes, and the text of each table cell."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("td", "code"):
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "code"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] += data


@given(st.lists(any_text, min_size=1, max_size=5))
def test_a_table_of_anything_has_only_its_own_elements_and_says_every_text(texts):
    page = html_table(pd.DataFrame({"token": pd.Series(texts, dtype=object)}), max_characters=20_000)
    page.encode("utf-8")
    seen = Reader(page)
    assert set(seen.elements) == {"style", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert seen.attributes <= {"class", "scope"}
    assert seen.cells == [visible(text, spaces=False) for text in texts]


@given(any_text)
def test_visible_text_has_no_invisible_character_left(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert shown.isprintable() or not shown
    assert " " not in shown and (len(shown) >= len(text))


def test_what_invisible_characters_look_like():
    assert visible(" yes\n\t") == "·yes↵⇥"
    assert visible("\x00\x1b\r") == "⟨U+0000⟩⟨U+001B⟩⟨U+000D⟩"
    assert visible("\u202e\u200b\ud800") == "⟨U+202E⟩⟨U+200B⟩⟨U+D800⟩"
    assert visible("two words\n", spaces=False) == "two words\n"
    assert escape('<b>"&') == "&lt;b&gt;&quot;&amp;"


def test_headings_and_captions_are_escaped_too():
    page = html_table(pd.DataFrame({"<b>": [1]}), caption="<i>")
    assert "<b>" not in page and "<i>" not in page and "&lt;b&gt;" in page and "&lt;i&gt;" in page


def test_numbers():
    shown = [
        number(v)
        for v in (None, float("nan"), 3, -3, 1234567, 0.123456, -0.00001234, 12345.678, float("-inf"), True)
    ]
    assert shown == ["–", "–", "3", "−3", "1,234,567", "0.1235", "−1.234e−05", "12,345.7", "−∞", "True"]
    page = html_table(pd.DataFrame({"x": np.array([0.5, np.nan]), "n": np.array([2, 3])}))
    assert Reader(page).cells == ["0.5", "2", "–", "3"] and page.count('<td class="wb-number"') == 4


def test_what_is_cut_is_said():
    assert shorten("a" * 10_000, 10) == "a" * 10 + "… (+9,990 characters)"
    page = html_table(pd.DataFrame({"n": range(100)}), max_rows=7)
    assert len(Reader(page).cells) == 7 and "93 more rows are not shown" in page


def test_facts_are_escaped_pairs():
    assert Reader(html_facts({"n": 2, "name": "<x>"})).cells == ["n", "2", "name", "<x>"]


def test_an_empty_table_stands():
    assert Reader(html_table(pd.DataFrame({"a": []}))).cells == []


def test_a_table_for_a_terminal_by_hand():
    frame = pd.DataFrame({"token": ["be", "\x1b[31mhonest\n"], "effect": [0.5, -1.25], "sure": [True, False]})
    assert plain_table(frame, "effects").splitlines() == [
        "effects",
        "token                effect  sure",
        "be                      0.5  True",
        "⟨U+001B⟩[31mhonest↵   -1.25  False",
    ]
    assert (
        plain_table(frame, max_rows=1).splitlines()[-1] == "... 1 more rows"
        and plain_table(pd.DataFrame()) == ""
    )
    assert plain_table(pd.DataFrame({"a": ["x" * 99]}), max_characters=10).splitlines()[-1] == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("-0.5 to -1", "−0.5 to −1"), ("a-1 and 2-3", "a-1 and 2-3"), ("co-op -x", "co-op -x")],
)
def test_a_minus_is_one_before_a_digit_alone(text, shown):
    assert minus(text) == shown


def test_only_a_word_too_long_for_a_column_may_be_broken():
    page = html_table(pd.DataFrame({"a": ["short words only", "x" * 33]}))
    assert (
        page.count("wb-long") == 1 + TABLE_STYLE.count("wb-long")
        and "overflow-wrap:break-word" in TABLE_STYLE
    )
