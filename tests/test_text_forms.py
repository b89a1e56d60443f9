"""Texts in several Unicode forms: what is the same text, and what is half of one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UserError
from workbench.text_forms import (
    canonical,
    join_surrogates,
    lone_surrogate,
    require_whole_text,
    unify_line_ends,
    words_of,
)

WHOLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(WHOLE)
def test_canonically_equivalent_texts_have_one_canonical_form(text: str) -> None:
    """The oracle is Unicode's own definition: texts with one NFD are the same text."""
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, text)
        assert canonical(other) == canonical(text)
        assert words_of(other) == words_of(text)
    assert canonical(canonical(text)) == canonical(text)


@given(WHOLE, WHOLE)
def test_invisible_characters_do_not_tell_texts_apart(left: str, right: str) -> None:
    for invisible in ("\u00ad", "\u200b", "\u2060", "\ufeff"):
        assert words_of(f"a{left}x{invisible}y{right}") == words_of(f"a{left}xy{right}")
    assert canonical("soft\u00adware") == "software" != canonical("soft ware")


def test_words_keep_their_vowel_signs_and_lose_case_and_punctuation() -> None:
    assert words_of("It's 12 EGGS!") == ["it", "s", "12", "eggs"]
    assert words_of("\u0915\u093f \u0915\u0940") == ["\u0915\u093f", "\u0915\u0940"]
    assert words_of("STRASSE") == words_of("Stra\u00dfe")
    assert words_of("\uff21\ufb01") == ["afi"]


@given(WHOLE)
def test_line_ends_become_line_feeds_and_nothing_else_changes(text: str) -> None:
    plain = text.replace("\r", "")
    assert unify_line_ends(plain) == plain
    assert unify_line_ends(plain.replace("\n", "\r\n")) == plain == unify_line_ends(plain.replace("\n", "\r"))


@given(WHOLE)
def test_pairs_of_surrogates_are_joined_and_halves_are_named(text: str) -> None:
    units = text.encode("utf-16-le")
    halves = "".join(chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2))
    assert join_surrogates(halves) == text and lone_surrogate(halves) is None
    assert require_whole_text(text, "here") == text
    with pytest.raises(UserError, match=r"here: holds U\+D83D, half of a character"):
        require_whole_text(f"{text}\ud83d!", "here")
