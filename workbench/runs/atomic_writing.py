"""Write files atomically: a reader or a crash finds the old file or the new one, never a part of it.

1. The bytes go to a new file of a random name in the same directory (a rename is atomic only inside one file
   system).
2. That file is flushed to the disk (fsync).
3. It is renamed over the old one (os.replace), and the directory is flushed too, so that the name survives a
   power cut.

`reached` is called between the steps. It does nothing; crash tests replace it to kill the process at a named
point.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from workbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".tmp"
POINTS = ("begun", "opened", "written", "synced", "renamed")


def reached(point: str) -> None:
    """Mark a point between two steps of writing a file; it does nothing.

    Crash tests replace this function, to stop the process at one of POINTS.
    """


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically.

    A device or a pipe is written to directly, since renaming over it (such as /dev/null) would replace it for
    the whole machine.

    Args:
        path: The file.
        data: Its new content.

    Raises:
        UserError: The file cannot be written.
    """
    path = Path(path)
    if _is_device(path):
        try:
            with path.open("wb") as device:
                device.write(data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}")
    reached("begun")
    try:
        _write_through(temporary, data)
        os.replace(temporary, path)
        reached("renamed")
        _sync_directory(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def writable_directory(out: str | Path) -> Path:
    """Return the absolute path of a directory to write to, and make the directory if it is missing.

    Long computations call this first, so that they fail early.

    Args:
        out: The directory.

    Raises:
        UserError: `out` is a file, or the directory cannot be made.
    """
    path = Path(out).expanduser().absolute()
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{out}: expected a directory to write to, found a file")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error
    return path


def _is_device(path: Path) -> bool:
    """Whether a path is a device, a pipe or a socket, or a system name for one (such as /dev/stdout).

    A link elsewhere is not, whatever it leads to: it is replaced, so that somebody else's run directory
    cannot make this process write outside it.
    """
    place = path.absolute()
    if place.parent == Path("/dev") or place.parts[:2] == ("/", "proc"):
        return place.exists() and not place.is_dir()
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON with a stable layout (indented, keys in the given order), atomically.

    numpy numbers become plain ones. NaN and infinity, which JSON does not have, raise ValueError; use None
    for a missing figure.

    Args:
        path: The file.
        value: Plain values, numpy values, paths and pydantic models.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def finite(value: Any) -> Any:
    """Copy nested lists and mappings, with None for numbers that JSON does not have (NaN, infinities)."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, without its index, atomically."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors with text metadata, atomically; tensors are moved to the CPU first."""
    import torch  # imported late, since readers of reports and manifests do not need it
    from safetensors.torch import save

    ready = {name: torch.as_tensor(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _in_one_order(save(ready, metadata=dict(metadata or {}))))


def _in_one_order(data: bytes) -> bytes:
    """Sort the metadata of a safetensors file, since the library's order differs between processes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _write_through(temporary: Path, data: bytes) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        reached("opened")
        file.write(data)
        file.flush()
        reached("written")
        os.fsync(file.fileno())
    reached("synced")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return cast(Any, value).model_dump(mode="json")
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
