"""The front end's files: ES modules joined in order, and style sheets, ready for inlining into a page."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

#: What the linked view needs; the report and the panel begin with these.
SHARED_MODULES = ("dom.mjs", "linked_views.mjs")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.mjs";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


@cache
def bundle(*names: str, package: str = "workbench.report") -> str:
    """These modules as one, in this order: imports of each other are removed, and so are exports of names (not a default)."""
    joined = "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(name, package))) for name in names)
    return _inline(joined, "a module")


@cache
def styles(*names: str, package: str = "workbench.report") -> str:
    """These style sheets as one."""
    return _inline("\n".join(_read(name, package) for name in names), "a style sheet")


def _read(name: str, package: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _inline(text: str, what: str) -> str:
    assert "</s" not in text.lower() and "<!--" not in text, f"{what} would close its own element"
    return text
