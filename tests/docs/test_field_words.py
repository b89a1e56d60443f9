"""Prose uses the field's own words: no word of the old dialect is in a comment, a docstring, a message, a page or a notebook.

The words, what to write instead, and the allowed exceptions are data: `field_words.yaml`.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

WORDS = yaml.safe_load((Path(__file__).with_name("field_words.yaml")).read_text(encoding="utf-8"))
PATTERN = re.compile("|".join(rf"\b(?:{word})\b" for word, _ in WORDS["words"]), re.IGNORECASE)
INSTEAD = [(re.compile(rf"\b(?:{word})\b", re.IGNORECASE), instead) for word, instead in WORDS["words"]]
_SPAN = re.compile(r"`[^`\n]*`")
_VALUE = re.compile(r"\{[^{}\n]*\}")
_FENCE = re.compile(r"^\s*```.*?^\s*```\s*$", re.MULTILINE | re.DOTALL)


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """The text with each match replaced by its line breaks, so that line numbers stay."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def python_prose(text: str, strings: bool = True) -> Iterator[tuple[int, str]]:
    """Lines of comments and docstrings and, with `strings`, of other literals that hold a space."""
    statement_start = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_text = token.type in (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1))
        if token.type == tokenize.COMMENT or (
            is_text and " " in token.string and (strings or statement_start)
        ):
            for i, line in enumerate(blanked(_VALUE, blanked(_SPAN, token.string)).splitlines()):
                yield token.start[0] + i, line
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            statement_start = token.type in (
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
                tokenize.ENCODING,
            )


def page_prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a Markdown page without code, targets of links and HTML tags."""
    for pattern in (_FENCE, _SPAN, re.compile(r"\]\([^)]*\)"), re.compile(r"<[^<>]*>")):
        text = blanked(pattern, text)
    yield from enumerate(text.splitlines(), 1)


def template_prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a Jinja template without its expressions and tags."""
    for pattern in (re.compile(r"\{[{%].*?[}%]\}", re.DOTALL), re.compile(r"<[^<>]*>", re.DOTALL)):
        text = blanked(pattern, text)
    yield from enumerate(text.splitlines(), 1)


def script_prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments and spaced literals of a JavaScript module."""
    for number, line in enumerate(text.splitlines(), 1):
        yield (
            number,
            " ".join(
                said for said in re.findall(r"//.*|/?\*+ .*|\"[^\"]*\"", _SPAN.sub("", line)) if " " in said
            ),
        )


def prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_prose(text, strings=not path.is_relative_to(ROOT / "tests"))
    elif path.suffix == ".ipynb":
        for i, cell in enumerate(json.loads(text)["cells"]):
            if cell["cell_type"] == "markdown":
                yield from ((i, line) for _, line in page_prose("".join(cell["source"])))
    elif path.suffix == ".j2":
        yield from template_prose(text)
    elif path.suffix == ".mjs":
        yield from script_prose(text)
    elif path.suffix == ".yaml":
        yield from ((n, line.partition("#")[2]) for n, line in enumerate(text.splitlines(), 1))
    else:
        yield from page_prose(text)


def files() -> Iterator[Path]:
    for folder in ("workbench", "benchmarks", "tests", "docs", "notebooks", ".github"):
        for suffix in ("py", "md", "ipynb", "j2", "mjs"):
            yield from (ROOT / folder).rglob(f"*.{suffix}")
    yield from (ROOT / "docs" / "examples").glob("*.yaml")
    yield from ROOT.glob("*.md")
    yield from (ROOT / "data").glob("*/README.md")


def found(path: Path) -> list[str]:
    """The dialect words of a file: "line: word -> what to write; the line"."""
    name = str(path.relative_to(ROOT))
    allowed = [
        re.compile(phrase)
        for place, phrases in WORDS["exceptions"].items()
        if re.fullmatch(place, name)
        for phrase in phrases
    ]
    hits = []
    for number, line in prose(path):
        for phrase in allowed:
            line = phrase.sub("", line)
        if match := PATTERN.search(line):
            instead = next(
                text for pattern, text in INSTEAD if pattern.search(match[0]) or pattern.search(line)
            )
            hits.append(f"{name}:{number}: {match[0]!r} -> {instead}; {line.strip()}")
    return hits


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        (python_prose, 'a = 1  # the token behind it\n"""Not `behind`."""\nbehind = "behind"\n', [1]),
        (python_prose, '"""One.\n\nIt stands here.\n"""\nraise E(f"{x} lies in {y}")\n', [3, 5]),
        (lambda text: python_prose(text, strings=False), 'f("it stands here")\n"""It stands here."""\n', [2]),
        (page_prose, "# A\n```\nbehind\n```\nIt is [behind](beside.md) `beside`\n", [5]),
        (template_prose, "{{ beside }}<p beside='x'>\nBeside it</p>", [2]),
        (
            script_prose,
            'const behind = 1; // behind it\nf("behind", "is behind it")\nconst beside = 2\n',
            [1, 2],
        ),
    ],
)
def test_prose_is_read(reader, text, expected):
    assert [number for number, line in reader(text) if PATTERN.search(line)] == expected


def test_prose_uses_the_words_of_the_field():
    assert [hit for path in sorted(files()) for hit in found(path)] == []
