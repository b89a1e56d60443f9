"""Parse JSON strictly: no repeated names, no NaN, no halves of surrogate pairs; errors name the line.

Python's reader keeps the last of two equal names and accepts half of an emoji. The first can silently swap a
label, the second fails later in a tokenizer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from workbench.errors import UserError
from workbench.text_forms import unify_line_ends

#: Largest number of objects and lists (up to 250 bytes each) and of values (up to 60 bytes) in one text:
#: together less than 1 GB.
LARGEST_CONTAINERS, LARGEST_VALUES = 2_000_000, 8_000_000
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


def parse_json(text: str, where: str, first_line: int = 1) -> Any:
    """Parse JSON text strictly.

    Args:
        text: One JSON value.
        where: The text's place, such as a path, for the message.
        first_line: Number of the text's first line in its file, from 1.

    Raises:
        UserError: The text is not JSON, repeats a name in one object, is nested too deeply, or has numbers
            that JSON lacks. The message names `where` and the line.

    Example:
        >>> parse_json('{"a": [1, 2]}', "example")
        {'a': [1, 2]}
    """
    _refuse_too_many(text, where)
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object_of_pairs)
    except _RepeatedNameError as error:
        line, name = next(repeated_names(text), (1, str(error)))
        raise UserError(
            f"{where}, line {first_line + line - 1}: the key {name!r} appears twice in one object"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}, line {first_line + error.lineno - 1}, column {error.colno}: expected JSON: {error.msg}"
        ) from error
    except RecursionError as error:
        where = where if first_line == 1 else f"{where}, line {first_line}"
        raise UserError(f"{where}: JSON nested too deeply") from error
    except ValueError as error:  # NaN or infinity, or a number with more digits than Python reads
        where = where if first_line == 1 else f"{where}, line {first_line}"
        raise UserError(f"{where}: expected JSON, {' '.join(str(error).split())}") from error


def parse_json_lines(text: str, where: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for each line of JSON Lines; empty lines are skipped.

    Args:
        text: The text.
        where: Its place, such as a path, for the message.

    Raises:
        UserError: A line is not JSON, as in `parse_json`.
    """
    _refuse_too_many(text, where)
    for line, one in enumerate(
        unify_line_ends(text).split("\n"), start=1
    ):  # not splitlines, since a JSON text may contain U+2028
        if one.strip():
            yield line, parse_json(one, where, line)


def _refuse_too_many(text: str, where: str) -> None:
    """Raise UserError for text with too many values, counted by its punctuation before anything is parsed.

    A value of two letters takes 64 bytes of memory.
    """
    found = {"objects and lists": text.count("{") + text.count("["), "values": text.count(",")}
    for kind, most in (("objects and lists", LARGEST_CONTAINERS), ("values", LARGEST_VALUES)):
        if found[kind] > most:
            raise UserError(
                f"{where}: expected at most {most:,} {kind}, found {found[kind]:,} of their marks"
            )


def repeated_names(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, name) for each name that occurs again in one object of valid JSON text."""
    objects: list[set[str] | None] = []  # the names so far of every open object; None for an array
    is_name = False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            objects.append(set() if mark == "{" else None)
        elif mark in "}]":
            objects.pop()
        names = objects[-1] if objects else None
        if mark[0] == '"' and is_name and names is not None:
            name = json.loads(mark)
            if name in names:
                yield text.count("\n", 0, token.start()) + 1, name
            names.add(name)
        is_name = mark == "{" or (mark == "," and names is not None)


class _RepeatedNameError(ValueError):
    """An object has the same name twice."""


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedNameError(Counter(names).most_common(1)[0][0])
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"found {name}, which JSON does not have")
