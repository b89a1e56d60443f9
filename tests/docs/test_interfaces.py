"""The names that the documentation gives exist: the architecture's interfaces with their arguments, their order and their defaults (a new
option may be missing there), and the reference pages' objects."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from typing import Any

import pytest

from tests.support.doc_blocks import blocks
from tests.support.paths import ROOT

[LISTING] = [block for block in blocks("text") if block.page.name == "architecture.md"]


def interfaces() -> list[tuple[str, str, str]]:
    """(part, name, arguments) of each interface, an exception's without arguments; eight or more spaces continue the line before."""
    text = re.sub(r"\n {8,}", " ", LISTING.code)
    found, part = [], ""
    for line in text.splitlines():
        if line.startswith("# "):
            part = line[2:]
        elif line and not line.startswith(" "):
            name, _, arguments = line.partition("(")
            found.append((part, name, arguments.removesuffix(")")))
    return found


def resolve(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_the_listing_is_read_whole():
    assert len(interfaces()) > 70 and {part for part, _, _ in interfaces()} >= {
        "errors",
        "models",
        "search",
        "attribution",
        "sweep",
    }


@pytest.mark.parametrize(
    ("part", "name", "arguments"), interfaces(), ids=lambda value: value if value.isidentifier() else ""
)
def test_an_interface_is_as_documented(part, name, arguments):
    own = inspect.signature(resolve(f"workbench.{part}", name)).parameters if arguments else {}
    written = ast.parse(f"def f({arguments}): ...").body[0].args
    named = [argument.arg for argument in (*written.args, *written.kwonlyargs)]
    listed = [
        p.name for p in own.values() if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    assert named == [argument for argument in listed if argument in named], (
        f"{part}.{name} has {', '.join(listed)}"
    )
    defaults = [
        *[None] * (len(written.args) - len(written.defaults)),
        *written.defaults,
        *written.kw_defaults,
    ]
    for argument, default in zip(named, defaults, strict=True):
        assert (default is None) == (own[argument].default is inspect.Parameter.empty), f"{name}: {argument}"
        if default is not None and ast.unparse(default) not in ("...", "nan"):
            assert own[argument].default == ast.literal_eval(default), f"{name}: {argument}"


@pytest.mark.parametrize(
    "page",
    sorted({*(ROOT / "docs/reference").glob("*.md")} - {ROOT / "docs/reference/index.md"}),
    ids=lambda page: page.stem,
)
def test_the_objects_of_a_reference_page_exist(page):
    named = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    for name in named:
        module, _, last = name.rpartition(".")
        assert resolve(module, last) is not None, name
