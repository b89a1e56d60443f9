"""A hash of a model's files, for models that are not loaded yet: a judge, a proposer."""

from __future__ import annotations

import hashlib

from workbench.errors import UserError
from workbench.models.model_directory import open_model_directory
from workbench.models.model_sources import find_source


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
    source = find_source(name, revision)
    checkpoint = open_model_directory(source.directory)
    files = [*sorted(source.directory.glob("*.json")), *sorted(source.directory.glob("*.jinja")), *checkpoint.shards]
    files += sorted(source.adapter.glob("adapter_*")) if source.adapter else []
    found = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return found.hexdigest()
