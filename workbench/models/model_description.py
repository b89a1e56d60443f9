"""Read a model's description in words, which runs store and the report shows.

It is the file `description.json` next to the model's weights or its adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError
from workbench.models.gguf_files import gguf_record
from workbench.models.loading import provenance
from workbench.models.model_directory import read_json

FILE = "description.json"
LONGEST = 1_000


@dataclass(frozen=True)
class ModelDescription:
    """A model in words.

    Attributes:
        called: Its name in a sentence, such as "the organism" (the small demo model).
        about: One or two sentences about the model.

    Example:
        >>> ModelDescription("the organism").about
        ''
    """

    called: str = ""
    about: str = ""


def describe_model(model: Any) -> ModelDescription | None:
    """Return the description in words of a loaded model (`ModelDescription`).

    It is read from description.json in the model's directory. For a model from a GGUF file without this, the
    name in the file's metadata is used.

    Args:
        model: A model that `load_model` loaded.

    Returns:
        The description, or None if there is none or the model was not loaded by `load_model`.

    Raises:
        UserError: description.json is not a JSON object of the texts `called` and `about`, each of at most
            1,000 characters.

    Example:
        >>> describe_model(model).called
        'the organism'
    """
    known = provenance(model)
    if known is None:
        return None
    file = (known.source.adapter or known.source.directory) / FILE
    if not file.is_file():
        name = None if known.source.adapter else (gguf_record(known.source.directory) or {}).get("name")
        return ModelDescription(str(name)[:LONGEST]) if name else None
    entry = read_json(file)
    for name, text in entry.items():
        if name not in ("called", "about") or not isinstance(text, str) or len(text) > LONGEST:
            raise UserError(
                f"{file}: expected the texts called and about, at most {LONGEST:,} characters each, found {name}"
            )
    return ModelDescription(**entry)
