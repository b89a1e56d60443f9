"""The front end's files (ES modules joined in order, and style sheets), ready to be inlined into a page."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

#: Modules of the linked views, which the report and the panel include first.
SHARED_MODULES = ("dom.mjs", "linked_views.mjs")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.mjs";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


@cache
def bundle(*names: str, package: str = "workbench.report") -> str:
    """Join JavaScript (ES) modules into one module, in the given order.

    Imports between the modules and exports of names are removed; a default export is kept.

    Args:
        names: File names of the modules, each after those that it imports.
        package: Package that contains the files.
    """
    joined = "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(name, package))) for name in names)
    return _inline(joined, "a module")


@cache
def styles(*names: str, package: str = "workbench.report") -> str:
    """Join style sheets into one text.

    Args:
        names: File names of the style sheets.
        package: Package that contains the files.
    """
    return _inline("\n".join(_read(name, package) for name in names), "a style sheet")


def _read(name: str, package: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _inline(text: str, what: str) -> str:
    assert "</s" not in text.lower() and "<!--" not in text, f"{what} would close its own element"
    return text
