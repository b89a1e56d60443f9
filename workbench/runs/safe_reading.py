"""Read files that may be incomplete, edited by hand, of another version, or hostile.

Every reader checks a file before it is used: size, encoding, syntax, schema version, and for tensors the
header (its size, every dtype, shape and byte range) and the finiteness of the numbers. A fault gives one
UserError that names the file and the fault. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import UserError
from workbench.runs.strict_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor

MEBIBYTE = 1 << 20
#: Largest number of rows and bytes of an unpacked Parquet table.
LARGEST_ROWS, LARGEST_TABLE = 20_000_000, 1024 * MEBIBYTE
#: Most bytes of a cell in a pandas table, without its text, and of a cell with a list (in Arrow a cell may
#: take one bit or none).
CELL, NESTED_CELL = 16, 160
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


def read_bytes(path: str | Path, limit: int = 4096 * MEBIBYTE) -> bytes:
    """Read the bytes of a regular file; UserError if there is none or it is larger than `limit` bytes."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: expected a file, found {'a directory' if path.is_dir() else 'nothing'}")
        size = path.stat().st_size
        if size > limit:
            raise UserError(f"{path}: expected at most {limit // MEBIBYTE} MiB, found {size / MEBIBYTE:.1f}")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(limit + 1)  # a file of /proc has no size, and reading it may block or never end
        if data is None or len(data) > limit:
            raise UserError(
                f"{path}: expected at most {limit // MEBIBYTE} MiB, found a file {'that ends nowhere' if data else 'that waits'}"
            )
        return data
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_text(path: str | Path, limit: int = 256 * MEBIBYTE) -> str:
    """Read UTF-8 text, without byte order marks before it.

    Args:
        path: The file.
        limit: Largest size in bytes.

    Raises:
        UserError: The file cannot be read or is not UTF-8; the message names the line of the first wrong
            byte.
    """
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: expected UTF-8, found the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error


def read_json(path: str | Path, schema: int | None = None, limit: int = 256 * MEBIBYTE) -> Any:
    """Read the value of a JSON file.

    Args:
        path: The file.
        schema: Required value of the key "schema" of the file's object; None for no check.
        limit: Largest size in bytes.

    Raises:
        UserError: The file cannot be read, is not JSON, or has another schema.
    """
    value = parse_json(read_text(path, limit), str(path))
    if schema is not None:
        found = value.get("schema") if isinstance(value, dict) else None
        if found != schema or isinstance(found, bool):
            raise UserError(
                f"{path}: expected schema {schema}, found {found!r}; another version or another kind of file"
            )
    return value


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table.

    Args:
        path: The file.
        columns: Required columns; others are kept.

    Raises:
        UserError: The file cannot be read or is damaged, a column is missing, or the table is too large.
    """
    data = read_bytes(path)
    try:
        frame = _table_within(path, data)
    except UserError:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        NotImplementedError,
    ) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a whole Parquet file: {first[:200]}") from error
    missing = [name for name in columns or () if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path}: expected the columns {', '.join(missing)}, found {', '.join(map(str, frame.columns)) or 'none'}"
        )
    return frame


def _table_within(path: str | Path, data: bytes) -> pd.DataFrame:
    """Read a table in small batches, with a size limit; a few compressed bytes may expand to terabytes."""
    file = pq.ParquetFile(io.BytesIO(data))
    if file.metadata.num_rows > LARGEST_ROWS:
        raise UserError(f"{path}: expected at most {LARGEST_ROWS:,} rows, found {file.metadata.num_rows:,}")
    batches, size = [], 0
    width = sum(NESTED_CELL if pa.types.is_nested(column.type) else CELL for column in file.schema_arrow)
    for batch in file.iter_batches(batch_size=1024):
        size += max(batch.nbytes, width * batch.num_rows)
        if size > LARGEST_TABLE:
            raise UserError(f"{path}: expected at most {LARGEST_TABLE // MEBIBYTE} MiB of values, found more")
        batches.append(batch)
    table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    table.validate(full=True)  # otherwise texts that are not UTF-8 would fail later, where they are used
    return table.to_pandas()


def read_safetensors(
    path: str | Path, shapes: Mapping[str, tuple[int | None, ...]] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and metadata of a safetensors file.

    Args:
        path: The file.
        shapes: Required tensors with their shapes; None in a shape allows any length.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        UserError: The file cannot be read or is damaged, a required tensor is missing or has another shape,
            or a number is not finite.
    """
    data = read_bytes(path)
    header = _checked_header(path, data)
    _check_shapes(path, header, shapes or {})
    import torch  # imported late, since readers of reports and manifests do not need it
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}, tensor {name!r}: holds numbers that are not finite")
    return tensors, header.get("__metadata__", {})


def resolved(path: str | Path) -> Path:
    """Return a path with its links followed; UserError for links that lead to each other."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a null byte
        raise UserError(f"{path}: a link that leads nowhere ({error})") from error


def file_hash(path: str | Path) -> str:
    """Return the sha256 (hexadecimal) of a file's bytes."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _checked_header(path: str | Path, data: bytes) -> dict[str, Any]:
    """Return the header of a safetensors file, after checking the file's layout.

    The layout is eight bytes of length, JSON, then the tensors' bytes without gaps.
    """
    length = int.from_bytes(data[:8], "little")
    # The length of a header of 640, 1152 or 1408 bytes has the same first bytes as a pickle.
    is_header = data[8:9] == b"{" and length <= len(data) - 8
    if not is_header and data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise UserError(
            f"{path}: expected safetensors, found a pickle or an archive of pickles; it can run code and is not opened"
        )
    if len(data) < 8:
        raise UserError(f"{path}: expected safetensors, found only {len(data)} bytes")
    if length > min(len(data) - 8, 100 * MEBIBYTE):
        raise UserError(
            f"{path}: not a whole safetensors file: its header should have {length} bytes, {len(data) - 8} are there"
        )
    try:
        header = parse_json(data[8 : 8 + length].decode("utf-8"), f"{path}, header")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected safetensors, but its header is no JSON") from error
    except UserError as error:
        raise UserError(f"{path}: expected safetensors, but its header is no JSON table: {error}") from error
    if not isinstance(header, dict) or not _is_text_map(header.get("__metadata__", {})):
        raise UserError(f"{path}: expected safetensors, but its header is no table of tensors")
    _check_ranges(path, header, len(data) - 8 - length)
    return header


def _check_ranges(path: str | Path, header: Mapping[str, Any], n_bytes: int) -> None:
    ranges = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        ranges.append(_entry_range(path, name, entry))
    end = 0
    for start, stop in sorted(ranges):
        if start != end:
            raise UserError(f"{path}: the tensors' bytes have a gap or overlap at {end}")
        end = stop
    if end != n_bytes:
        raise UserError(
            f"{path}: not a whole safetensors file: its tensors should have {end} bytes, {n_bytes} are there"
        )


def _entry_range(path: str | Path, name: str, entry: Any) -> tuple[int, int]:
    """Return (first byte, byte after the last) of one tensor; UserError if its entry is inconsistent."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise UserError(f"{path}, tensor {name!r}: expected the fields {', '.join(sorted(keys))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise UserError(f"{path}, tensor {name!r}: unknown dtype {dtype!r}")
    if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != 2:
        raise UserError(
            f"{path}, tensor {name!r}: expected a shape and two offsets, found {shape!r} and {offsets!r}"
        )
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise UserError(
            f"{path}, tensor {name!r}: {dtype} of shape {shape} does not fill the bytes {offsets[0]} to {offsets[1]}"
        )
    return offsets[0], offsets[1]


def _check_shapes(
    path: str | Path, header: Mapping[str, Any], shapes: Mapping[str, tuple[int | None, ...]]
) -> None:
    for name, wanted in shapes.items():
        if name not in header:
            names = ", ".join(sorted(set(header) - {"__metadata__"})) or "none"
            raise UserError(f"{path}: expected a tensor {name!r}, found {names}")
        found = header[name]["shape"]
        if len(found) != len(wanted) or any(
            w is not None and w != f for w, f in zip(wanted, found, strict=True)
        ):
            raise UserError(f"{path}, tensor {name!r}: expected shape {list(wanted)}, found {found}")


def _is_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63 for n in value
    )


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
