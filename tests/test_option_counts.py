"""At most eight options per function: what is seldom set is a small frozen value (`ComparisonOptions`, `LayerScanOptions`, ...).

An option has a default. What must be given is limited in the same way. The commands of the command line are
exempt: a flag is no argument.
"""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import ROOT

MOST = 8


def counts(source: str) -> dict[str, tuple[int, int]]:
    """(required, optional) arguments of each function, by name and line; `self`, `cls` and catch-alls are not counted."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            named = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")]
            optional = len(a.defaults) + sum(default is not None for default in a.kw_defaults)
            found[f"{node.name}:{node.lineno}"] = (len(named) - optional, optional)
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b, /, c=1, *args, d, e=2, **more): ...", (3, 2)),
        ("class C:\n def f(self, a, b=1): ...", (1, 1)),
        ("async def f(*, a, b=None): ...", (1, 1)),
    ],
)
def test_arguments_are_counted(source, expected):
    assert list(counts(source).values()) == [expected]


def test_no_function_has_more_than_eight_options_or_eight_required_arguments():
    files = [
        file
        for file in (ROOT / "workbench").rglob("*.py")
        if "cli" not in file.relative_to(ROOT / "workbench").parts
    ]
    found = {
        f"{file.relative_to(ROOT)} {name}": n
        for file in files
        for name, n in counts(file.read_text(encoding="utf-8")).items()
    }
    assert len(found) > 1500
    assert not {name: n for name, n in found.items() if max(n) > MOST}
