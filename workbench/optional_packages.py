"""Packages that only some commands need: a missing one is named with the pip command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from workbench.errors import UserError

#: The extras of pyproject.toml that a user installs by need.
Extra = Literal["notebook", "sweep", "lora", "gepa", "inspect"]


@contextmanager
def needs_extra(extra: Extra, what: str) -> Iterator[None]:
    """Import optional packages inside this block.

    Args:
        extra: an extra of pyproject.toml, whose packages the block imports.
        what: the subject of the error, for example "drawing figures".

    Raises:
        UserError: a package is missing. The line names the package and the pip command.

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
