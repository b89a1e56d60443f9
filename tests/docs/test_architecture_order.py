"""The packages on the architecture page are those of the import contract, in its order."""

from __future__ import annotations

import re
import tomllib

from tests.support.paths import ROOT


def test_the_page_lists_every_package_in_import_order():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    order = [
        name.strip()
        for layer in next(c for c in contracts if c["type"] == "layers")["layers"]
        for name in layer.split("|")
    ]
    page = (ROOT / "docs/architecture.md").read_text()
    block = re.search(r"## Packages in import order.*?```\n(.*?)```", page, flags=re.S)
    assert block is not None
    assert [line.split()[0] for line in block[1].splitlines()] == order
