"""Packages that can be called: `wb.search(...)` works before and after `import workbench.search`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(package: str, function: Callable[..., Any]) -> None:
    """Make an imported package callable: a call of the package calls the function.

    Importing a part of a package binds the package's name in its parent, where it would hide a function of
    the same name (`wb.search`).

    Args:
        package: The package's `__name__`.
        function: The function that a call of the package runs.

    Example:
        >>> make_callable(__name__, search)  # doctest: +SKIP
    """
    sys.modules[package].__class__ = type(
        "CallablePackage", (ModuleType,), {"__call__": staticmethod(function)}
    )
