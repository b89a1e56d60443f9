"""Writing a file so that a reader or a crash meets the old one or the new one, never half of one.

1. The bytes go to a new file of a random name in the same directory (a rename is atomic only inside one file
   system).
2. That file is flushed to the disk (fsync).
3. It is renamed over the old one (os.replace), and the directory is flushed too, so that the name survives a
   power cut.

`reached` is called between the steps; it does nothing, and a test replaces it with a kill at a named point.
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
    """A named point between two steps (POINTS); does nothing but let a crash test stop the process there."""


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all. UserError where the place cannot be written to.

    A device or a pipe is written to as it is: renaming over /dev/null would take it away from the whole
    machine, where the user may do that.
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
    """The directory to write to, made where it is missing; what takes long calls this first.

    UserError where `out` is a file or cannot be made.
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
    """Is the path a device, a pipe or a socket, or a name that the system gives to one (/dev/stdout, whatever that is now)?

    A link elsewhere is none, whatever it leads to: it is replaced, so that a run of somebody else writes to
    nothing outside.
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
    """UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """JSON with a stable layout (indented, in the order given).

    numpy numbers become plain ones; NaN and infinity, which JSON does not have, raise ValueError: write None
    for a missing figure.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def finite(value: Any) -> Any:
    """The same nested lists and mappings with None for every number that JSON does not have (NaN, infinities)."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """A table as Parquet, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Named tensors (moved to the CPU, made contiguous) with text metadata."""
    import torch  # here, not above: a reader of reports and manifests does not wait for torch
    from safetensors.torch import save

    ready = {name: torch.as_tensor(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _in_one_order(save(ready, metadata=dict(metadata or {}))))


def _in_one_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in another order in every process."""
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
