"""Find the directory of a model from the user's text: a name of this project, a path, or a hub repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

import workbench
from workbench.errors import UserError
from workbench.models.gguf_files import converted_directory, is_gguf, smollm_directory

#: Short names of hub repositories: the paper's three models.
REPOSITORIES = {
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
    "gemma-3-4b-it": "google/gemma-3-4b-it",
}
#: Files that are fetched from a repository: configs, tokenizers, templates, safetensors; no code, no pickles.
_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Location of a model's files.

    Attributes:
        name: The name that the user gave.
        directory: The Hugging Face directory with its files.
        revision: The hub's commit hash; None for directories.
        adapter: A LoRA adapter that is merged into the weights at load time; None if there is none.
    """

    name: str
    directory: Path
    revision: str | None = None
    adapter: Path | None = None


def find_source(name: str | Path, revision: str | None = None) -> ModelSource:
    """Find the directory of a model, and download it if that is needed and allowed.

    A GGUF file is converted at the first call. For a repository, the local cache is searched first; the
    network is used only if the cache lacks the model and HF_HUB_OFFLINE is not set.

    Args:
        name: `organism`, `smollm2-135m`, `smollm2-sycophant`, `smollm2-personas`, a key of REPOSITORIES, a
            path (a Hugging Face directory, a GGUF file, or a directory with a single one), or
            `owner/repository`.
        revision: Branch, tag or commit of a repository; the commit hash it points to now is recorded.

    Raises:
        UserError: Nothing is found, or a revision is given for a model that is not on the hub.
    """
    text, path = str(name), Path(name).expanduser()
    if revision is not None and (text in _OWN or path.exists()):
        raise UserError(f"revision {revision!r} is for repositories of the hub; {text} is none")
    if text in _OWN:
        return _OWN[text](text)
    if is_gguf(path):
        return ModelSource(text, converted_directory(path.resolve()))
    if path.is_dir():
        return ModelSource(text, path.resolve())
    if path.is_file():
        raise UserError(
            f"{name} is a file: expected a model's directory, or a .gguf file; if it is one of several pieces of a GGUF "
            "file, join all of them in order first (cat PIECE1 PIECE2 ... > MODEL.gguf)"
        )
    if not _REPOSITORY.fullmatch(text) or isinstance(name, Path):
        raise UserError(f"no model directory at {name}")
    return _from_hub(text, REPOSITORIES.get(text.lower(), text), revision)


def model_names() -> list[str]:
    """Return the names of the models that `load_model` knows, which need no path or repository."""
    return [*_OWN, *REPOSITORIES]


def data_directory(*parts: str) -> Path:
    """Return a folder of the data that this project ships.

    Such data are the demo model ("organism"), its SAE and LoRA adapters. The folder may not exist. An
    installed package has the data in `workbench/_data`; a checkout has it in `data/` next to the package.

    Args:
        *parts: Path of the folder below the data directory.

    Example:
        >>> data_directory("organism", "sae").name
        'sae'
    """
    package = Path(workbench.__file__).parent
    installed = package / "_data"
    return (installed if installed.is_dir() else package.parent / "data").joinpath(*parts)


def _organism(name: str) -> ModelSource:
    directory = data_directory("organism", "model")
    if not (directory / "config.json").is_file():
        raise UserError(f"the organism is not trained yet: no model in {directory}")
    return ModelSource(name, directory)


def _adapted(name: str) -> ModelSource:
    adapter = data_directory(ADAPTERS[name])
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"the real-language organism is not trained yet: no adapter in {adapter}")
    return ModelSource(name, smollm_directory(), adapter=adapter)


#: The real-language organisms: model -> folder of its adapter in data/.
ADAPTERS = {"smollm2-sycophant": "language_organism", "smollm2-personas": "language_personas"}
_OWN: dict[str, Callable[[str], ModelSource]] = {
    "organism": _organism,
    "smollm2-135m": lambda name: ModelSource(name, smollm_directory()),
    **dict.fromkeys(ADAPTERS, _adapted),
}


def base_of(name: str) -> str | None:
    """Return the name of the base model of a model with a merged LoRA adapter; None if it is not known.

    Unless another model is given, a study uses the base model to measure a second time how fluent a prompt
    is.

    Args:
        name: A model name, as in `load_model`.

    Example:
        >>> base_of("smollm2-personas")
        'smollm2-135m'
    """
    return "smollm2-135m" if name in ADAPTERS else None


def _from_hub(name: str, repository: str, revision: str | None) -> ModelSource:
    try:
        return _snapshot(name, repository, revision, local=True)
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise UserError(f"no model directory at {name}, and no such name on the hub") from error
    try:
        return _snapshot(name, repository, revision, local=False)
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"model {name!r} is no directory, not in the local cache, and {why_no_download(error)}; known names: {', '.join(model_names())}"
        ) from error


def why_no_download(error: Exception) -> str:
    """Explain in half a sentence why nothing was downloaded (offline or a failed request), with advice."""
    if constants.HF_HUB_OFFLINE:
        return "offline mode forbids a download: unset HF_HUB_OFFLINE, or give a directory"
    return f"the download failed ({type(error).__name__}): check the name, the network and your access, or give a directory"


def _snapshot(name: str, repository: str, revision: str | None, local: bool) -> ModelSource:
    found = Path(
        snapshot_download(repository, revision=revision, allow_patterns=_PATTERNS, local_files_only=local)
    )
    return ModelSource(name, found, revision=found.name)
