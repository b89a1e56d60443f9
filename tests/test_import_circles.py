"""No two modules of the workbench import each other, directly or through others, when they are loaded."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.support.paths import ROOT

PACKAGE = ROOT / "workbench"
#: Named in annotations below its level: the conditions' builders get a study's settings, which know the
#: conditions' names.
SETTINGS = "workbench.study.study_settings"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """What runs when the module is loaded, and what is under `if TYPE_CHECKING`."""
    for node in tree.body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from node.body


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules that this one names; for a name of a package, the module of the package that has it."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & modules) or {node.module} & modules
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
    return found


def graph() -> Mapping[str, set[str]]:
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    edges = {name: imports(path, set(paths)) - {name} for name, path in paths.items()}
    return {
        name: found - {SETTINGS} if name.startswith("workbench.conditions.") else found
        for name, found in edges.items()
    }


def test_modules_can_be_ordered_so_that_each_imports_only_earlier_ones():
    edges = graph()
    assert "workbench.models.hooked_runner" in edges["workbench.models.runners"], "the check sees imports"
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from error


def test_two_modules_that_import_each_other_are_found():
    try:
        list(TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).static_order())
    except CycleError as error:
        assert set(error.args[1]) == {"a", "b", "c"}
    else:
        raise AssertionError("no circle was found")
