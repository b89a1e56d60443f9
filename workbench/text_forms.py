"""Normal forms of a text: line ends, halves of surrogate pairs, and the form in which two texts are compared.

Models get texts as they were written; only line ends are unified (`unify_line_ends`), because a tokenizer has
separate tokens for a carriage return. Groups, duplicates and hashes compare texts in a canonical form, so
that a file saved in another Unicode form is the same data: `canonical` (composed, without invisible
characters) and `words_of` (Unicode's compatibility caseless match, words only).
"""

from __future__ import annotations

import re
import unicodedata

from workbench.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")
# Signs of category Cf that are drawn (Arabic and other number signs); every other Cf character is invisible.
_DRAWN_FORMAT = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)


def unify_line_ends(text: str) -> str:
    r"""Replace every CR LF and every lone CR by a line feed.

    Example:
        >>> unify_line_ends("a\\r\\nb\\rc")
        'a\\nb\\nc'
    """
    return _LINE_END.sub("\n", text)


def join_surrogates(text: str) -> str:
    """Replace each high surrogate followed by a low surrogate by the one character that the two encode.

    JSON read as YAML, and some exports, write one emoji as two escapes.
    """
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if _SURROGATE.search(text)
        else text
    )


def lone_surrogate(text: str) -> str | None:
    """Return the first half of a surrogate pair without its other half, as "U+D83D", or None."""
    found = _SURROGATE.search(join_surrogates(text))
    return f"U+{ord(found[0]):04X}" if found else None


def require_whole_text(text: str, where: str) -> str:
    """Return the text unchanged if it has no half of a surrogate pair.

    Args:
        text: The text to check.
        where: Place of the text (file and line, for example), for the error message.

    Raises:
        UserError: The text contains half of a surrogate pair.
    """
    half = lone_surrogate(text)
    if half:
        raise UserError(
            f"{where}: holds {half}, half of a character (an emoji cut in two?): the text was damaged on its way"
        )
    return text


def canonical(text: str) -> str:
    r"""Return the text composed (NFC), without invisible characters, and with single spaces as white space.

    Two spellings of the same visible text have one canonical form: NFC and NFD, with and without soft
    hyphens, zero-width characters and byte order marks.

    Example:
        >>> canonical("cafe\\u0301  au\\u00adlait") == "caf\\u00e9 aulait"
        True
    """
    if text.isascii():
        return " ".join(text.split())
    visible = "".join(ch for ch in unicodedata.normalize("NFC", text) if not _is_invisible(ch))
    return " ".join(unicodedata.normalize("NFC", visible).split())


def text_length(text: str) -> int:
    r"""Return the number of characters of a text's canonical form.

    Every comparison of texts by length uses this length.

    Example:
        >>> text_length("cafe\\u0301") == text_length("caf\\u00e9") == 4
        True
    """
    return len(canonical(text))


def words_of(text: str) -> list[str]:
    r"""Return the words and numbers of a text for comparison: case-folded, in form NFKC, without punctuation.

    A vowel sign or accent that is a separate character belongs to its word.

    Example:
        >>> words_of("Ou\\u0300 est-il, LE CAF\\u00c9?") == ["o\\u00f9", "est", "il", "le", "caf\\u00e9"]
        True
    """
    if text.isascii():
        return re.findall(r"\w+", text.casefold())
    folded = unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold()).casefold()
    )
    visible = (ch for ch in folded if not _is_invisible(ch))
    return "".join(ch if ch == "_" or unicodedata.category(ch)[0] in "LMN" else " " for ch in visible).split()


def _is_invisible(ch: str) -> bool:
    if unicodedata.category(ch) == "Cf":
        return ch not in _DRAWN_FORMAT
    return ch == "\u034f" or "\ufe00" <= ch <= "\ufe0f" or "\U000e0100" <= ch <= "\U000e01ef"
