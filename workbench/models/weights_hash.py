"""Hash a model's files, so that a resumed run can check that its models are the same.

Models that are not loaded yet (a judge, a proposer) can be checked as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from workbench.errors import UserError
from workbench.models.model_directory import open_model_directory
from workbench.models.model_sources import ModelSource, find_source

#: Endings of the files that are hashed in addition to the weights.
SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken")


def weights_hash(name: str, revision: str | None = None) -> str:
    """Return the sha256 of a model's configuration, tokenizer and weights, and of its adapter.

    Args:
        name: Model name, directory or GGUF file, as in `load_model`.
        revision: Branch, tag or commit of a repository.

    Returns:
        64 hexadecimal digits: equal for equal files, in whichever directory they are.

    Raises:
        UserError: There is no such model, or one of its files cannot be read.

    Example:
        >>> len(weights_hash("organism"))
        64
    """
    return source_hash(find_source(name, revision))


def source_hash(source: ModelSource) -> str:
    """Return the sha256 of a model's files, as `weights_hash` does, for a model that was already found.

    Args:
        source: The result of `find_source`.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: A file of the model cannot be read.

    Example:
        >>> source_hash(find_source("organism")) == weights_hash("organism")
        True
    """
    checkpoint = open_model_directory(source.directory)
    files = [path for suffix in SETTINGS for path in sorted(source.directory.glob(f"*{suffix}"))]
    files += [*checkpoint.shards, *(sorted(source.adapter.glob("adapter_*")) if source.adapter else [])]
    return files_hash(files)


def files_hash(files: Iterable[Path]) -> str:
    """Return the sha256 of the names and contents of files.

    A file that did not change since an earlier call is not read again.

    Args:
        files: The files; their order changes the hash.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: A file cannot be read.

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
    """Return the sha256 of a file, cached while its size, time and inode are unchanged.

    A sweep needs the hash for every study.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
