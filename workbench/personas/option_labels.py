"""Labels of options ("(A)", "B.", "**2**", U+2461): their names, and the layouts in which texts write them.

1. A name is a letter, a digit, a Roman numeral or a circled sign. `fold_name` converts full-width and circled
   forms, and Cyrillic and Greek letters that look like Latin ones, to the plain sign, so that "(A)" names the
   same option in every script.
2. `place_of` gives the option that a name means among the names in a text.
3. `LINE_MARKS` are the layouts of a label at the beginning of a line, `TEXT_MARKS` those within a line.
"""
# ruff: noqa: RUF001  (letters of other scripts are what this file is about)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SAME_LOOK = str.maketrans(
    "АВЕКМНОРСТХІΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEKMHOPCTXIABEZHIKMNOPTX"
)  # Cyrillic and Greek to Latin


def fold_name(name: str) -> str:
    r"""Return an option's name, such as "b", in a form that can be compared: capital, Latin if possible.

    Full-width, circled, Cyrillic and Greek signs are replaced by the Latin ones that look alike.

    Example:
        >>> [fold_name(name) for name in ("b", "\\uff22", "\\u0412", "\\u2461", "ii")]
        ['B', 'B', 'B', '2', 'II']
    """
    return unicodedata.normalize("NFKC", name).upper().translate(_SAME_LOOK)


#: Names that options may have, in order.
ALPHABETS: tuple[tuple[str, ...], ...] = tuple(
    tuple(fold_name(name) for name in names.split())
    for names in (
        "A B C D E F G H",
        "1 2 3 4 5 6 7 8 9",
        "0 1 2 3 4 5 6 7 8 9",
        "А Б В Г Д",
        "Α Β Γ Δ",
        "I II III IV V",
        "X Y Z",
        "أ ب ج د",
        "ا ب ج د",
        "가 나 다 라",
        "ア イ ウ エ",
        "甲 乙 丙 丁",
    )
)

_LETTER = (
    "A-Za-z0-9\uff21-\uff3a\uff41-\uff5a\uff10-\uff19"  # Latin and digits, plain and full-width
    "\u0391-\u03a9\u03b1-\u03c9\u0410-\u042f\u0430-\u044f"  # Greek, Cyrillic
    "\u0627\u0623\u0628\u062c\u062f\uac00\ub098\ub2e4\ub77c\u30a2\u30a4\u30a6\u30a8\u7532\u4e59\u4e19\u4e01"  # Arabic, Hangul, kana, Han
)
_DECOMPOSED = "|".join(
    form for ch in "\u0623\uac00\ub098\ub2e4\ub77c" if (form := unicodedata.normalize("NFD", ch)) != ch
)
NAME = rf"(?P<name>[Ii]{{2,3}}|[Ii][Vv]|{_DECOMPOSED}|[{_LETTER}])"
_CIRCLED = "(?P<name>[\u2460-\u2468\u24b6-\u24e9])"
_WORD = r"(?:(?i:option|choice)\s+)?"
_BOLD = r"(?:\*\*|__)?"


def _in_brackets(opening: str, closing: str) -> str:
    name = rf"{_WORD}{NAME}[.:]?"
    return rf"{_BOLD}{opening}{{1,2}} ?{name} ?{closing}{{1,2}}{_BOLD}(?:[.:](?=\s))?(?:[ \t]*[-\u2013\u2014:](?=\s))?"


#: Layouts such as "(A)", whose letters never number a list of other things.
BRACKETED = tuple(
    _in_brackets(*pair)
    for pair in ((r"\(", r"\)"), (r"\[", r"\]"), ("\uff08", "\uff09"), ("\u3010", "\u3011"))
)
TEXT_MARKS = (
    *BRACKETED,
    *(_in_brackets(*pair) for pair in ((r"\{", r"\}"), ("\u300c", "\u300d"))),
    rf"{_BOLD}{_WORD}{NAME}(?:[).:]{{1,2}}{_BOLD}(?=\s)|[\u3001\uff0e\uff1a\uff09]{_BOLD})",
    rf"(?:\*\*|__|[`\"'\u201c]){_WORD}{NAME}(?:\*\*|__|[`\"'\u201d])[.:)]?(?=\s)",
    _CIRCLED,
)
LINE_MARKS = (
    *TEXT_MARKS,
    rf"#{{0,6}}[ \t]*{_BOLD}{_WORD}{NAME}[.:]?{_BOLD}[ \t]*(?=\n)",  # on a line of its own
    rf"{_WORD}{NAME}(?:[ \t]*(?:[-\u2013\u2014|/=]|->|\u2192)[ \t]+|\t+)",
)
_SAYS = r"(?:(?:the\s+)?(?:(?:correct|best|right)\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?(?:(?:option|choice)\s+)?"
_DECORATION = r"[*_`\"'\u201c\u201d]*"
_LABEL = re.compile(
    rf"{_DECORATION}(?P<says>(?i:{_SAYS})){_DECORATION}(?:"
    + "|".join(
        mark.replace("(?P<name>", f"(?P<n{i}>")
        for i, mark in enumerate((*TEXT_MARKS[:-3], _in_brackets("<", ">"), _CIRCLED))
    )
    + rf"|{NAME}(?:[).:]{{1,2}}(?=\s|\Z|[*_`\"'])|[\u3001\uff0e\uff1a\uff09])){_DECORATION}[.:]?\s*"
)
_BARE_LABEL = re.compile(
    rf"(?P<before>{_DECORATION}(?i:{_SAYS}){_DECORATION}){NAME}(?P<after>{_DECORATION}\.?)"
)


def label_of(text: str) -> tuple[str, str] | None:
    """Split an answer that begins with an option's label, such as "(b) No", into the label and the rest.

    The label is returned in the form of `fold_name` (a capital letter). The result is None without a label.

    Example:
        >>> label_of("(b) No"), label_of(" A"), label_of("A man")
        (('B', 'No'), ('A', ''), None)
    """
    text = text.strip()
    found = _LABEL.match(text)
    if found:
        name = next(value for key, value in found.groupdict().items() if key != "says" and value)
        return fold_name(name), text[found.end() :].strip()
    bare = _BARE_LABEL.fullmatch(text)
    return (fold_name(bare["name"]), "") if bare else None


def is_single_name(text: str) -> bool:
    """Whether a text is only a letter or number, which may be an answer ("2") and not an option's label."""
    bare = _BARE_LABEL.fullmatch(text.strip())
    return bare is not None and not bare["before"] and not bare["after"]


def certain_label(text: str) -> tuple[str, str] | None:
    """Return the option's label at the beginning of an answer, if it cannot be part of the answer itself.

    It serves questions without listed options. The result is None for a single letter or number without
    brackets and for a text such as "I. Newton".

    Args:
        text: The answer.

    Returns:
        The label in the form of `fold_name` (a capital letter) and the text after it, or None.
    """
    label = label_of(text)
    if label is None or is_single_name(text):
        return None
    return label if label[0] in "ABCDE12345" or (not label[1] and not label[0].isdigit()) else None


def names_options(names: Sequence[str]) -> bool:
    """Whether two names, in the form of `fold_name`, can label the two options of a question.

    They must be the first two of a series (A and B, 1 and 2, ...), in any order.
    """
    return any(set(names) == set(alphabet[:2]) for alphabet in ALPHABETS)


def starts_alphabet(name: str) -> bool:
    """Whether a name, in the form of `fold_name`, begins a series such as A, B, ... or 1, 2, ..."""
    return any(name == alphabet[0] for alphabet in ALPHABETS)


def followers(name: str) -> frozenset[str]:
    """Return the names that can label the second option if `name` labels the first, such as "B" for "A".

    All names are in the form of `fold_name` (capital letters).
    """
    return frozenset(alphabet[1] for alphabet in ALPHABETS if alphabet[0] == name)


def place_of(name: str, listed: Sequence[str]) -> int | None:
    """Return which of the two options of a question a name means, as index 0 or 1.

    A name that is not listed means the option with the same place in its series: B and 2 both mean the second
    option. The result is None if the name means neither option. All names are in the form of `fold_name`.
    """
    if name in listed:
        return listed.index(name)
    latin, numbers = ALPHABETS[:2]
    if tuple(listed) not in (latin[:2], numbers[:2]):
        return None
    return next((alphabet.index(name) for alphabet in (latin[:2], numbers[:2]) if name in alphabet), None)
