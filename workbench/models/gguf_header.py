"""Read a GGUF file's header (metadata, table of tensors); check every length against the file's size.

The format (version 2 and 3): magic, version, counts; `count` key-value pairs; `count` tensor infos; the data,
aligned. A damaged or hostile file gives one UserError, and a large count in the file never allocates memory.
Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from workbench.errors import UserError

MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Entry of one tensor in the header of a GGUF file.

    Attributes:
        name: The tensor's name in llama.cpp.
        shape: Shape in torch's order (last axis contiguous).
        kind: The quantisation.
        start: First byte in the file.
        n_bytes: Number of bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    n_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and table of tensors of a GGUF file.

    Attributes:
        file: The GGUF file.
        metadata: The file's metadata: number, text or list by key.
        tensors: The tensors in the file's order.
    """

    file: Path
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """Name of the model family in llama.cpp, such as `llama`; empty if the file states none."""
        return str(self.metadata.get("general.architecture", ""))

    def of_family(self, key: str, default: Any = None) -> Any:
        """Return a metadata value whose key begins with the model family's name.

        For the key `block_count` of a Llama model this is `llama.block_count`.

        Args:
            key: The key without the prefix.
            default: Result if the key is missing.
        """
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(file: Path) -> GgufHeader:
    """Read the metadata and the list of tensors of a GGUF file, but no weights.

    Raises:
        UserError: The file is not GGUF, is damaged, or is cut short.
    """
    try:
        with file.open("rb") as handle:
            if handle.read(4) != MAGIC:
                raise UserError(f"{file} is no GGUF file (it does not begin with 'GGUF'){_joining(file)}")
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(file, data)
    except (struct.error, UnicodeDecodeError, OverflowError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{file} is damaged or cut short: {' '.join(str(error).split())[:200]}{_joining(file)}"
        ) from error


def _joining(file: Path) -> str:
    """Advice for a file that may be one piece of a larger one."""
    return f"; if {file.name} is one of several pieces, join all of them in order first (cat PIECE1 PIECE2 ... > MODEL.gguf)"


class _Cursor:
    """Read little-endian values from a buffer; every read past the end raises struct.error."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def numbers(self, code: str, count: int = 1) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{code}") * count
        if size > len(self.data) - self.at:
            raise struct.error(f"{count} values announced at byte {self.at} of {len(self.data)}")
        values = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += size
        return values

    def text(self) -> str:
        (length,) = self.numbers("Q")
        if length > len(self.data) - self.at:
            raise struct.error(f"a text of {length} bytes announced at byte {self.at} of {len(self.data)}")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.numbers(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"unknown type {kind} of a metadata value")
        element, count = self.numbers("I")[0], self.numbers("Q")[0]
        if element in _SCALARS:
            return list(self.numbers(_SCALARS[element], count))
        if element != _STRING:
            raise ValueError(f"unknown type {element} of a metadata array")
        return [self.text() for _ in range(count)]


def _parse(file: Path, data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data, 4)
    (version,) = cursor.numbers("I")
    if version not in (2, 3):
        raise UserError(f"{file} is GGUF version {version}: expected 2 or 3 (little-endian)")
    n_tensors, n_values = cursor.numbers("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in range(n_values):
        key = cursor.text()
        if key in metadata:
            raise ValueError(f"the key {key!r} is there twice")
        metadata[key] = cursor.value(cursor.numbers("I")[0])
    table = []
    for _ in range(n_tensors):
        name, (n_axes,) = cursor.text(), cursor.numbers("I")
        shape = tuple(reversed(cursor.numbers("Q", n_axes)))
        kind, offset = cursor.numbers("I")[0], cursor.numbers("Q")[0]
        table.append((name, shape, kind, offset))
    step = metadata.get("general.alignment", 32)
    if not isinstance(step, int) or step <= 0:
        raise ValueError(f"an alignment of {step!r} bytes")
    data_start = -(-cursor.at // step) * step
    tensors = tuple(_tensor(file, *row, data_start=data_start, end=len(data)) for row in table)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("a tensor is there twice")
    return GgufHeader(file, metadata, tensors)


def _tensor(
    file: Path, name: str, shape: tuple[int, ...], kind: int, offset: int, *, data_start: int, end: int
) -> GgufTensor:
    try:
        quantisation = GGMLQuantizationType(kind)
    except ValueError as error:
        raise UserError(
            f"{file}: tensor {name} has the quantisation number {kind}, which is not known here"
        ) from error
    block, block_bytes = GGML_QUANT_SIZES[quantisation]
    if not shape or shape[-1] % block:
        raise ValueError(f"tensor {name} of shape {shape} does not hold whole blocks of {quantisation.name}")
    n_bytes, start = prod(shape) // block * block_bytes, data_start + offset
    if start + n_bytes > end:
        raise ValueError(f"tensor {name} ends at byte {start + n_bytes:,}, the file at {end:,}")
    return GgufTensor(name, shape, quantisation, start, n_bytes)
