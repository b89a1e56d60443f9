"""Damage for files: of bytes (any format), and of the values in JSON, which stays JSON."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

PIECES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"-",
    b"!!python/object:os.system",
    b"!!bool x",
    b"&a",
    b"*a",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"\xed\xa0\xbd",
    b"\\ud83d",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"null",
    b"true",
    b"<<: ",
    b"? ",
    b"{{",
    b"%}",
    b"../../../etc/passwd",
    b"\t",
    b"0x7fffffffffffffff",
    b"-1",
    b"\xf0\x9f\x98\x80",
    b"a" * 10_000,
    b"[" * 2000,
    b'{"a":' * 500,
)
DEEP: Any = None
for _ in range(200):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    2**63,
    -(2**63),
    "",
    " ",
    "\n",
    "x" * 50_000,
    "\ud83d",
    "\x1b[2J",
    "\u202e",
    "\x00",
    "../../..",
    "/dev/null",
    "NaN",
    "1",
    "true",
    [],
    {},
    [[]],
    {"": {}},
    [None] * 50,
    {"a": 1, "b": [2]},
    DEEP,
    "\u00e9",
    "e\u0301",
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to four changes: flipped, deleted, repeated, cut, or with a piece of PIECES put in."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1000))
        kind = rng.randrange(7)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + data[at : at + length] * rng.randint(2, 4) + data[at:]
        elif kind == 3 and rng.random() < 0.3:
            data = data[:at]
        elif kind == 4:
            data = data[:at] + rng.randbytes(length) + data[at + length :]
        else:
            data = data[:at] + rng.choice(PIECES) + data[at + rng.choice((0, 0, length)) :]
    return data


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value after one to three changes: a value of VALUES in place of another, a key lost, renamed or added, rows repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        value = _changed_once(value, rng)
    return value


def dumped(value: Any, rng: random.Random) -> bytes:
    """A JSON value as bytes; sometimes with a key twice, and with what JSON lacks (NaN)."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]
    return text.encode("utf-8", "surrogatepass")


def _changed_once(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(VALUES))
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(list(keys))
    if isinstance(value, dict) and rng.random() < 0.25:
        kept = value.pop(key)
        if rng.random() < 0.6:
            value[rng.choice(("x", str(key).upper(), "", "__class__", f"{key} ", "\u202e"))] = kept
        return value
    if isinstance(value, list) and rng.random() < 0.2:
        return value[:key] + value[key:] * rng.randint(0, 2)
    value[key] = _changed_once(value[key], rng) if rng.random() < 0.75 else copy.deepcopy(rng.choice(VALUES))
    return value
