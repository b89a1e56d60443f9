"""Docstrings of `workbench`'s public names: Google sections that name every argument, and an example that runs.

The examples take the names of `tests/support/doc_names.py` as given (docs/reference/index.md says so).
"""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import workbench as wb
from tests.support.doc_names import doc_names
from tests.support.registries import restored_registries
from workbench.evaluation import open_answers
from workbench.personas import DataQuestion


def public(name: str) -> Any:
    """The object of a public name; the function of a package that can be called."""
    found = getattr(wb, name)
    return getattr(found, name) if isinstance(found, ModuleType) and hasattr(found, name) else found


NAMES = [name for name in wb.__all__ if not isinstance(public(name), ModuleType)]
FUNCTIONS = [name for name in NAMES if not inspect.isclass(public(name))]
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):\n((?:    .*\n|\n)*)", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    return dict(_SECTION.findall(text + "\n"))


def described(text: str, section: str) -> set[str]:
    """Names that a section explains: those at its own indent."""
    return set(re.findall(r"^    (\w+):", sections(text).get(section, ""), re.MULTILINE))


def own_fields(kind: type) -> set[str]:
    """Public data of a class that its bases do not have."""
    inherited = {name for base in kind.__mro__[1:] for name in getattr(base, "__annotations__", {})}
    if hasattr(kind, "model_fields"):
        return {name for name in kind.__annotations__ if name in kind.model_fields and not name.endswith("_")}
    if dataclasses.is_dataclass(kind):
        return {
            f.name
            for f in dataclasses.fields(kind)
            if not f.name.startswith("_") and f.name not in inherited - set(kind.__annotations__)
        }
    return set()


def test_sections_are_read():
    text = "One line.\n\nArgs:\n    a: x\n        more: text\n    b: y\n\nReturns:\n    z\n\nExample:\n    >>> 1\n"
    assert (
        described(text, "Args") == {"a", "b"}
        and "z" in sections(text)["Returns"]
        and ">>> 1" in sections(text)["Example"]
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_explains_every_argument_and_what_it_returns(name):
    function = public(name)
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    assert described(text, "Args") == set(signature.parameters)
    assert "Returns" in sections(text) or "Iterator" in str(signature.return_annotation)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FUNCTIONS) - {"Study"}))
def test_a_class_explains_its_data(name):
    """A study's settings are explained by docs/study.md, which another test compares with them."""
    kind = public(name)
    text = inspect.getdoc(kind) or ""
    assert own_fields(kind) <= described(text, "Attributes")


@pytest.fixture(scope="module")
def names(organism):
    given = doc_names(organism)
    answers = open_answers(organism, given["data"].test.items[:2], max_new_tokens=4)
    return given | {"np": np, "answers": answers, "DataQuestion": DataQuestion}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = sections(inspect.getdoc(public(name)) or "").get("Example", "")
    example = doctest.DocTestParser().get_doctest(
        inspect.cleandoc(text), names | {"tmp_path": tmp_path}, name, None, None
    )
    assert example.examples
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    said: list[str] = []
    with restored_registries():
        found = doctest.DocTestRunner(optionflags=flags, verbose=False).run(example, out=said.append)
    assert not found.failed, "".join(said)
