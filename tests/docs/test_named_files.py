"""A Python file that a docstring or comment names exists: files were renamed and the texts around them were not."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

SOURCES = sorted((ROOT / "workbench").rglob("*.py"))
NAMES = {path.name for part in ("workbench", "tests", "benchmarks") for path in (ROOT / part).rglob("*.py")}
NAMED = re.compile(r"(?:^|[`(\s/])([a-z_]\w*\.py)\b")


def missing(text: str) -> list[str]:
    return [name for name in NAMED.findall(text) if name not in NAMES]


def test_an_old_name_is_found():
    assert missing("see `nodes.py` and (runner.py), not numpy.pyx") == ["nodes.py"]


@pytest.mark.parametrize("part", sorted({path.relative_to(ROOT / "workbench").parts[0] for path in SOURCES}))
def test_files_named_in_the_source_exist(part):
    own = [path for path in SOURCES if path.relative_to(ROOT / "workbench").parts[0] == part]
    found = {str(path.relative_to(ROOT)): missing(path.read_text()) for path in own}
    assert {path: names for path, names in found.items() if names} == {}
