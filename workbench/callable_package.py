"""Packages that can be called: `wb.search(...)` stays the function after `workbench.search` was imported as a package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(package: str, function: Callable[..., Any]) -> None:
    """Calling the imported package calls the function: importing any part of a package binds its name in the parent package.

    Args:
        package: the package's `__name__`.
        function: what a call of the package does.

    Example:
        >>> make_callable(__name__, search)  # doctest: +SKIP
    """
    sys.modules[package].__class__ = type(
        "CallablePackage", (ModuleType,), {"__call__": staticmethod(function)}
    )
