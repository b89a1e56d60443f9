"""The one exception that means "the user can correct this"."""

from __future__ import annotations

import unicodedata

#: Characters of a message; what is longer is cut in its middle.
LONGEST_MESSAGE = 500


class UserError(ValueError):
    """A mistake of the user's, told in one line: what was expected, what was found, and where.

    The command line prints the line and exits with code 2, without a traceback. The message is made fit for
    that, whatever a file put into it: no line ends or control characters (`visible_line`), at most
    LONGEST_MESSAGE characters.

    Example:
        >>> wb.load_persona("no such persona")
        Traceback (most recent call last):
        workbench.errors.UserError: ...
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > LONGEST_MESSAGE * 4:  # what is cut need not be looked at
            text = f"{text[: LONGEST_MESSAGE * 2]}{text[-LONGEST_MESSAGE * 2 :]}"
        super().__init__(cut_middle(visible_line(text), LONGEST_MESSAGE))


def visible_line(text: str) -> str:
    r"""The text in one line: a space for line ends and tabs, an escape for what a terminal would obey or not show.

    Example:
        >>> visible_line("a\\nb\\x1b[31m\\u202e")
        'a b\\\\x1b[31m\\\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def cut_middle(text: str, longest: int) -> str:
    """The text, or its beginning and end with an ellipsis between."""
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
