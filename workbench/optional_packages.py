"""Imports of packages that only some commands need; the error for a missing one gives its pip command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from workbench.errors import UserError

#: Extras of pyproject.toml, which a user installs when a command needs them.
Extra = Literal["notebook", "sweep", "lora", "gepa", "inspect"]


@contextmanager
def needs_extra(extra: Extra, what: str) -> Iterator[None]:
    """Import optional packages inside this block; a missing one becomes an error that names its pip command.

    Args:
        extra: The extra of pyproject.toml that installs the packages.
        what: Subject of the error message, for example "drawing figures".

    Raises:
        UserError: A package is missing. The message names the package and the pip command.

    Example:
        >>> with needs_extra("notebook", "drawing figures"):
        ...     import json
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "workbench"):
            raise
        raise UserError(
            f"{what} needs the package {missing}: pip install 'persona-workbench[{extra}]'"
        ) from error
