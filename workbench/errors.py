"""`UserError`, the one exception for mistakes that the user can correct, and the cleaning of its message."""

from __future__ import annotations

import unicodedata

#: Most characters of a message; a longer one is cut in its middle.
LONGEST_MESSAGE = 500


class UserError(ValueError):
    """A mistake that the user can correct, in one line: what was expected, what was found, and where.

    The command line prints the line and exits with code 2, without a traceback. Parts of the message may come
    from a file, so line ends and control characters are replaced (`visible_line`) and a message longer than
    LONGEST_MESSAGE characters is cut in its middle.

    Example:
        >>> wb.load_persona("no such persona")
        Traceback (most recent call last):
        workbench.errors.UserError: ...
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > LONGEST_MESSAGE * 4:  # the part that is cut anyway is not scanned
            text = f"{text[: LONGEST_MESSAGE * 2]}{text[-LONGEST_MESSAGE * 2 :]}"
        super().__init__(cut_middle(visible_line(text), LONGEST_MESSAGE))


def visible_line(text: str) -> str:
    r"""Return the text as one line: spaces for line ends, escapes for control and invisible characters.

    Example:
        >>> visible_line("a\\nb\\x1b[31m\\u202e")
        'a b\\\\x1b[31m\\\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def cut_middle(text: str, longest: int) -> str:
    """Shorten a text to `longest` characters with an ellipsis in its middle; shorter texts are unchanged."""
    end = longest // 3
    return text if len(text) <= longest else f"{text[: longest - end - 5]} ... {text[-end:]}"


def _visible(ch: str) -> str:
    if ch in "\n\r\t\v\f\u2028\u2029\x85":
        return " "
    return (
        ch.encode("unicode_escape").decode()
        if unicodedata.category(ch) in ("Cc", "Cf", "Cs", "Co", "Cn")
        else ch
    )
