"""A table of named things that fills itself: each file of a package registers what it defines, and nobody else keeps a list.

1. A file adds its entry under a name when it is imported; a second entry of that name is an error that names
   both files.
2. The first lookup imports every module of the registry's package, so that a new file in the folder is
   enough.
3. A lookup of an unknown name is a `UserError` that lists the known ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from workbench.errors import UserError

T = TypeVar("T")
S = TypeVar("S")


class RegistrationError(Exception):
    """Two files register the same name: a mistake of a programmer, not of a user."""


class Registry(Mapping[str, T]):
    """Entries by name, in the order of `order` and then of their names.

    Args:
        what: What one entry is, in the singular, for messages ("condition").
        package: The package whose modules register entries (None: only what is imported anyway).
        order: An entry's place among the others; lower comes first.

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("circle")
        ... class Circle: ...
        >>> list(shapes), shapes["circle"] is Circle
        (['circle'], True)
    """

    def __init__(
        self, what: str, package: str | None = None, order: Callable[[T], int] | None = None
    ) -> None:
        self.what, self._package, self._order = what, package, order or (lambda entry: 0)
        self._entries: dict[str, T] = {}
        self._files: dict[str, str] = {}
        self._complete = package is None

    def add(self, name: str, entry: T, through: str = __file__) -> T:
        """Registers the entry under the name and returns it.

        Args:
            name: What it is looked up by.
            entry: The entry.
            through: A file whose functions only pass entries on: the registering file is the one that called
                them.

        Raises:
            RegistrationError: The name is taken; both places (file and line) are named.
        """
        place = _caller((__file__, through))
        if name in self._entries:
            raise RegistrationError(
                f"the {self.what} {name!r} is registered twice: in {self._files[name]} and in {place}"
            )
        self._entries[name], self._files[name] = entry, place
        return entry

    def register(self, name: str) -> Callable[[S], S]:
        """`add` as a decorator of a class or a function."""

        def added(entry: S) -> S:
            self.add(name, entry)  # type: ignore[arg-type]  # a class is an entry of Registry[type[Base]]
            return entry

        return added

    def discard(self, name: str) -> None:
        """Forgets an entry, so that its name is free again (a notebook cell that is run twice, a test)."""
        self._entries.pop(name, None)
        self._files.pop(name, None)

    def file(self, name: str) -> str:
        """The file and line that registered the name, as `path:line`; UserError where the name is unknown."""
        return self._found(self._files, name)

    def __getitem__(self, name: str) -> T:
        return self._found(self._entries, name)

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries, key=lambda name: (self._order(self._entries[name]), name)))

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def _found(self, table: Mapping[str, S], name: str) -> S:
        self._discover()
        if name not in table:
            raise UnknownName(f"unknown {self.what} {name!r}: expected one of {', '.join(self)}")
        return table[name]

    def _discover(self) -> None:
        """Imports every module of the package, once. A lookup while that happens sees what is there so far."""
        if self._complete or self._package is None:
            return
        self._complete = True
        try:
            for module in iter_modules(import_module(self._package).__path__):
                import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._complete = False
            raise


class UnknownName(UserError, KeyError):
    """A name that a registry does not have; a KeyError too, so that `get` and other mapping methods work."""

    __str__ = UserError.__str__


def _caller(skipped: tuple[str, ...]) -> str:
    """File and line of the code outside the skipped files that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in skipped:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
