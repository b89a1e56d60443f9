"""What a notebook gets back shows itself as an escaped table: the objects that are no tables of their own."""

from __future__ import annotations

import ast
import dataclasses

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from workbench.attribution import CircuitNode, PromptPath
from workbench.directions import Direction
from workbench.forced_choice import Answers
from workbench.models import Site
from workbench.personas import Item, Persona

HOSTILE = "<img src=x onerror=alert(1)></script>\u202e"
SITE = Site(2)


def persona() -> Persona:
    items = tuple(Item(f"i{n}", f"question {HOSTILE}", HOSTILE, "no", f"g{n}") for n in range(12))
    return Persona(HOSTILE, HOSTILE, items, "text", None, {}, (), warnings=(HOSTILE,))


OBJECTS = {
    "persona": (persona, ["12"]),
    "split": (lambda: persona().split().train, ["train of", "i1"]),
    "splits": (lambda: persona().split(), ["selection", "test"]),
    "direction": (
        lambda: Direction(torch.tensor([3.0, 4.0]), SITE, HOSTILE, "own_choice", auc=0.875),
        ["blocks.2.hook_resid_post", "0.875", "5"],
    ),
    "answers": (
        lambda: Answers(np.array([1.0, -3.0]), np.array([True, False]), (HOSTILE, "b"), ("x", "y")),
        ["rate 50 %", "-1.00"],
    ),
    "path": (lambda: PromptPath((node(),), (HOSTILE,), 0.5), ["MLP of layer 2", "0.50"]),
}


def node() -> CircuitNode:
    given = {"site": SITE, "head": None, "place": 0, "estimate": 0.25, "exact": 0.5}
    return CircuitNode(**{f.name: given[f.name] for f in dataclasses.fields(CircuitNode)})


@pytest.mark.parametrize("name", OBJECTS)
def test_it_shows_itself_escaped(name):
    make, figures = OBJECTS[name]
    html = make()._repr_html_()
    assert "<table" in html and all(figure in html for figure in figures)
    assert "<img" not in html and "</script" not in html and "\u202e" not in html


def test_it_is_no_dump_of_fields_in_a_terminal():
    for make, _ in OBJECTS.values():
        shown = repr(make())
        assert not shown.startswith(f"{type(make()).__name__}(") or len(shown) < 200
    assert repr(persona().split()).splitlines()[1].split() == ["split", "items", "groups", "hash"]
    assert "rate 50 %" in repr(OBJECTS["answers"][0]()) and "\u202e" not in repr(OBJECTS["answers"][0]())


def test_what_shows_itself_in_a_notebook_shows_itself_in_a_terminal():
    """A class with an HTML form has a text of its own, and a dataclass does not write over that of its base."""
    wrong = []
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                own = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                given = any(
                    ast.unparse(base).split(".")[-1] in ("ShowsTable", "ShowsFacts") for base in node.bases
                )
                over = any(
                    d.startswith("dataclass") and "repr=False" not in d
                    for d in map(ast.unparse, node.decorator_list)
                )
                wrong += (
                    [node.name]
                    if ("_repr_html_" in own and "__repr__" not in own and not given) or (given and over)
                    else []
                )
    assert wrong == []
