"""A table of named entries that fills itself: each file of a package registers what it defines.

1. A file adds its entry under a name when it is imported. A second entry of that name is an error that names
   both files.
2. The first lookup imports every module of the registry's package, so a new file in the folder is found
   without a list of files.
3. A lookup of an unknown name is a `UserError` that lists the known names.
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
    """A mapping from names to registered entries, sorted by `order` and then by name.

    Args:
        what: What one entry is, in the singular, for messages ("condition").
        package: The package whose modules register entries; the first lookup imports them all. None: only
            entries of modules that are imported anyway.
        order: Function that gives an entry's sort key; entries with a lower key come first.

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
        """Register an entry under a name and return the entry.

        Args:
            name: Name under which the entry is looked up.
            entry: The entry.
            through: A file with helper functions that call `add`. Error messages name the file that called
                the helper instead.

        Raises:
            RegistrationError: The name is taken. The message gives file and line of both registrations.
        """
        place = _caller((__file__, through))
        if name in self._entries:
            raise RegistrationError(
                f"the {self.what} {name!r} is registered twice: in {self._files[name]} and in {place}"
            )
        self._entries[name], self._files[name] = entry, place
        return entry

    def register(self, name: str) -> Callable[[S], S]:
        """Return a decorator that adds a class or function under a name.

        Args:
            name: Name under which the class or function is looked up.
        """

        def added(entry: S) -> S:
            self.add(name, entry)  # type: ignore[arg-type]  # a class is an entry of Registry[type[Base]]
            return entry

        return added

    def discard(self, name: str) -> None:
        """Remove an entry, so that its name can be registered again (by a notebook cell that is run twice).

        Args:
            name: Name of the entry; an unknown name is ignored.
        """
        self._entries.pop(name, None)
        self._files.pop(name, None)

    def file(self, name: str) -> str:
        """Return where a name was registered, as `path:line`; an unknown name is a UserError.

        Args:
            name: Name of the entry.
        """
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
        """Import every module of the package, once. Lookups during the import see the entries so far."""
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
    """A name that a registry does not have; also a KeyError, so that `get` and other mapping methods work."""

    __str__ = UserError.__str__


def _caller(skipped: tuple[str, ...]) -> str:
    """Return file and line of the innermost running code outside the skipped files."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in skipped:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
