"""The tests' own layout: they mirror the package, and no test imports another test."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
#: Folders that test what is no package of the workbench: benchmarks, notebooks, documentation, the wheel,
#: shared cases.
OTHERS = {"faults", "fuzz", "cases", "interop", "benchmarks", "docs", "notebooks", "packaging", "support"}


def imported(file: Path) -> set[str]:
    """Every module that the file imports, at its top or inside a function."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    named = {
        f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) and n.module for a in n.names
    }
    return named | {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}


def is_test(name: str) -> bool:
    return any(part.startswith(("test_", "conftest")) for part in name.split("."))


def test_no_test_imports_another_test():
    files = sorted(TESTS.rglob("*.py"))
    found = {str(file.relative_to(ROOT)): imported(file) for file in files}
    assert any("tests.support" in name for names in found.values() for name in names), (
        "the check sees imports"
    )
    of_tests = {file: sorted(filter(is_test, names)) for file, names in found.items()}
    assert not {file: names for file, names in of_tests.items() if names}


def test_every_folder_is_a_package_of_the_workbench():
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and list(path.glob("test_*.py"))}
    packages = {path.parent.name for path in (ROOT / "workbench").glob("*/__init__.py")}
    assert folders - OTHERS <= packages
    assert not list((TESTS / "support").rglob("test_*.py"))
