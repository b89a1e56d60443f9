"""A hash of a model's files: what a resumed run compares, also for models that are not loaded yet (a judge, a proposer)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from workbench.errors import UserError
from workbench.models.model_directory import open_model_directory
from workbench.models.model_sources import ModelSource, find_source

#: Endings of what is read of a model apart from its weights.
SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken")


def weights_hash(name: str, revision: str | None = None) -> str:
    """sha256 over a model's configuration, tokenizer and weights, and those of its adapter.

    Args:
        name: As in `load_model`.
        revision: Branch, tag or commit of a repository.

    Returns:
        64 hexadecimal digits: equal for equal files, wherever they are.

    Raises:
        UserError: No such model, or files of it cannot be read.

    Example:
        >>> len(weights_hash("organism"))
        64
    """
    return source_hash(find_source(name, revision))


def source_hash(source: ModelSource) -> str:
    """The same for a model whose place is known.

    Args:
        source: Where it is.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: Files of it cannot be read.

    Example:
        >>> source_hash(find_source("organism")) == weights_hash("organism")
        True
    """
    checkpoint = open_model_directory(source.directory)
    files = [path for suffix in SETTINGS for path in sorted(source.directory.glob(f"*{suffix}"))]
    files += [*checkpoint.shards, *(sorted(source.adapter.glob("adapter_*")) if source.adapter else [])]
    return files_hash(files)


def files_hash(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of files, each read once while it stays as it is.

    Args:
        files: In the order that counts.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: One cannot be read.

    Example:
        >>> len(files_hash([]))
        64
    """
    found = hashlib.sha256()
    for path in files:
        try:
            state = path.stat()
            found.update(
                f"{path.name} {_digest(path, state.st_size, state.st_mtime_ns, state.st_ino)}\n".encode()
            )
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return found.hexdigest()


@cache
def _digest(path: Path, size: int, changed: int, inode: int) -> str:
    """sha256 of a file that is as it was when it was read: a sweep needs it for every study."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
