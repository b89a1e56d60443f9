"""Read and write directions: the workbench's safetensors, and two formats that other programs read.

The formats count layers differently. Block L's output (L from 0) is hidden_states[L + 1].

| format | where the layer is | block L's output |
|---|---|---|
| workbench, safetensors | field `layer` of the metadata | L |
| control vector, GGUF (repeng; llama.cpp) | name `direction.{layer}` | `direction.L` |
| persona_vectors, `.pt` (Chen et al. 2025) | row of one tensor [n_layers + 1, d_model] | row L + 1 |

repeng fits `direction.{layer}` on hidden_states[layer + 1], and llama.cpp adds it after block `layer`: both
mean block L's output. llama.cpp refuses layer 0. Row 0 of persona_vectors is the embedding. Nothing in a file
is executed when it is read: the formats are safetensors, GGUF, and a pickle restricted to tensors
(weights_only).
"""

from __future__ import annotations

import io
import json
import pickle
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFWriter, ReaderTensor, dequantize
from jaxtyping import Float
from torch import Tensor

from workbench.directions.direction import Direction
from workbench.errors import UserError
from workbench.models import HOOKS, Site
from workbench.runs import read_safetensors, write_bytes, write_safetensors

_FORMAT = "persona-workbench directions 1"


def save_directions(directions: Sequence[Direction], path: str | Path) -> Path:
    """Write directions with all of their fields to one safetensors file, completely or not at all.

    Args:
        directions: At least one direction.
        path: The file.

    Returns:
        The path.

    Raises:
        UserError: There is no direction.
    """
    if not directions:
        raise UserError("no directions to save")
    tensors = {str(i): d.vector for i, d in enumerate(directions)}
    write_safetensors(
        path, tensors, {"format": _FORMAT, "directions": json.dumps([d.to_json() for d in directions])}
    )
    return Path(path)


def load_directions(path: str | Path) -> tuple[Direction, ...]:
    """Read directions from a file that `save_directions` wrote.

    Args:
        path: The file.

    Returns:
        The directions, in the order in which they were saved.

    Raises:
        UserError: The file is of another format or damaged.
    """
    vectors, metadata = read_safetensors(path)
    if metadata.get("format") != _FORMAT:
        raise UserError(f"{path}: expected the format {_FORMAT!r}, found {metadata.get('format')!r}")
    try:
        entries = json.loads(metadata["directions"])
        return tuple(_from_json(entry, vectors[str(i)]) for i, entry in enumerate(entries))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: the description of the directions is damaged ({type(error).__name__}: {error})"
        ) from error


@dataclass(frozen=True)
class ControlVector:
    """The vectors of a control vector file, by layer.

    Attributes:
        vectors: Vector [d_model] by layer; layer L means the output of block L.
        model_hint: Model family that the file names; empty if none.
    """

    vectors: dict[int, Float[Tensor, " d_model"]]
    model_hint: str = ""

    def direction(self, layer: int, persona: str, source: str = "") -> Direction:
        """Return the vector of one layer as a direction, read at the decision token.

        Args:
            layer: Layer whose output the vector is for.
            persona: Name of the persona.
            source: Where the vector comes from, in words.

        Returns:
            The direction.

        Raises:
            UserError: The file has no vector for that layer.
        """
        if layer not in self.vectors:
            raise UserError(
                f"no vector for layer {layer}: the file has layers {', '.join(map(str, sorted(self.vectors)))}"
            )
        return Direction(self.vectors[layer], Site(layer), persona, "loaded", source=source)


def write_gguf(directions: Sequence[Direction], path: str | Path, model_hint: str = "") -> Path:
    """Write a control vector in the GGUF format of repeng and llama.cpp.

    The length of the vectors is kept: in llama.cpp a strength of 1 adds the distance between the two classes.
    llama.cpp refuses a file with layer 0.

    Args:
        directions: At most one direction per layer, each of the hook `resid_post`.
        path: The file.
        model_hint: Model family to name in the file.

    Returns:
        The path.

    Raises:
        UserError: There is no direction, two directions of one layer, or one of another hook.
    """
    vectors = _one_a_layer(directions)
    with tempfile.TemporaryDirectory() as scratch:
        writer = GGUFWriter(Path(scratch) / "vector.gguf", "controlvector")
        writer.add_string("controlvector.model_hint", model_hint)
        writer.add_uint32("controlvector.layer_count", len(vectors))
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", vector.float().numpy())  # llama.cpp accepts float32 only
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_bytes(path, (Path(scratch) / "vector.gguf").read_bytes())
    return Path(path)


def read_gguf(path: str | Path) -> ControlVector:
    """Read a GGUF control vector; `direction.L` becomes layer L.

    Args:
        path: The file.

    Returns:
        The vectors by layer.

    Raises:
        UserError: The file is missing, damaged or something else, or its vectors have different widths.
    """
    path = _existing(path)
    try:
        reader = GGUFReader(path)
        if reader.endianess == GGUFEndian.BIG:
            raise UserError(
                f"{path}: is big-endian, which is not read; convert it to little-endian first (gguf-convert-endian)"
            )
        architecture = _text_field(reader, "general.architecture")
        hint = _text_field(reader, "controlvector.model_hint")
        found = {t.name: _numbers(path, t) for t in reader.tensors if t.name.startswith("direction.")}
    except UserError:
        raise
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise UserError(f"{path}: expected a GGUF control vector, found something else ({error})") from error
    if architecture != "controlvector" or not found:
        raise UserError(
            f"{path}: expected a GGUF of architecture 'controlvector' with tensors 'direction.L', found {architecture!r}"
        )
    strange = [name for name in found if not re.fullmatch(r"direction\.(0|[1-9][0-9]{0,4})", name)]
    if strange:
        raise UserError(f"{path}: tensor {strange[0]!r} names no layer")
    vectors = {
        int(name.removeprefix("direction.")): torch.from_numpy(v).reshape(-1) for name, v in found.items()
    }
    return ControlVector(_checked(path, dict(sorted(vectors.items()))), hint)


def _numbers(path: Path, tensor: ReaderTensor) -> Float[np.ndarray, " d_model"]:
    """Return a tensor's numbers as float32, dequantized if necessary."""
    if len(tensor.shape) != 1:
        raise UserError(
            f"{path}: tensor {tensor.name!r} has the shape {tensor.shape.tolist()}: expected one vector"
        )
    if tensor.tensor_type == GGMLQuantizationType.F64:
        return np.array(tensor.data, dtype=np.float32)
    try:
        return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    except NotImplementedError as error:
        raise UserError(
            f"{path}: tensor {tensor.name!r} has the type {tensor.tensor_type.name}, which is not read; write it as F32"
        ) from error


def write_persona_vectors(directions: Sequence[Direction], path: str | Path, n_layers: int) -> Path:
    """Write a float32 tensor [n_layers + 1, d_model] in the format of persona_vectors.

    Row L + 1 holds block L's output; rows without a direction are zero.

    Args:
        directions: At most one direction per layer, each of the hook `resid_post`.
        path: The `.pt` file.
        n_layers: Number of layers of the model.

    Returns:
        The path.

    Raises:
        UserError: There is no direction, two directions of one layer, one of another hook, or a layer that
            the model does not have.
    """
    vectors = _one_a_layer(directions)
    if max(vectors) >= n_layers:
        raise UserError(
            f"layer {max(vectors)} does not exist: the model is said to have layers 0-{n_layers - 1}"
        )
    table = torch.zeros(n_layers + 1, len(next(iter(vectors.values()))))
    for layer, vector in vectors.items():
        table[layer + 1] = vector
    buffer = io.BytesIO()
    torch.save(table, buffer)
    write_bytes(path, buffer.getvalue())
    return Path(path)


def read_persona_vectors(path: str | Path) -> ControlVector:
    """Read a persona_vectors `.pt` file; row i becomes layer i - 1.

    Row 0 (the embedding) and rows of zeros are left out.

    Args:
        path: The file.

    Returns:
        The vectors by layer.

    Raises:
        UserError: The file is missing, damaged, or holds something other than one such tensor.
    """
    path = _existing(path)
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise UserError(
            f"{path}: expected a tensor saved by torch, found something that is not read for safety or is damaged"
        ) from error
    if not isinstance(table, Tensor) or table.dim() != 2 or len(table) < 2:
        found = (
            f"a tensor of shape {tuple(table.shape)}" if isinstance(table, Tensor) else type(table).__name__
        )
        raise UserError(f"{path}: expected one tensor [n_layers + 1, d_model], found {found}")
    return ControlVector(
        _checked(path, {i - 1: row.float() for i, row in enumerate(table) if i > 0 and bool(row.any())})
    )


def _one_a_layer(directions: Sequence[Direction]) -> dict[int, Tensor]:
    if not directions:
        raise UserError("no directions to write")
    for direction in directions:
        if direction.site.hook != "resid_post":
            raise UserError(
                f"this format holds outputs of blocks (resid_post) only, found {direction.site.name}"
            )
    layers = [d.site.layer for d in directions]
    if len(set(layers)) < len(layers):
        raise UserError(f"this format holds one direction a layer, found layers {sorted(layers)}")
    return {d.site.layer: d.vector for d in sorted(directions, key=lambda d: d.site.layer)}


def _checked(path: Path, vectors: dict[int, Tensor]) -> dict[int, Tensor]:
    if not vectors:
        raise UserError(f"{path}: holds no direction")
    widths = {len(v) for v in vectors.values()}
    empty = [layer for layer, v in vectors.items() if not bool(v.any())]
    if empty:
        raise UserError(f"{path}: the vector of layer {empty[0]} is all zeros: it points nowhere")
    if len(widths) > 1:
        raise UserError(f"{path}: vectors of different widths {sorted(widths)}")
    broken = [layer for layer, v in vectors.items() if not bool(torch.isfinite(v).all())]
    if broken:
        raise UserError(f"{path}: the vector of layer {broken[0]} holds values that are not finite")
    return vectors


def _from_json(entry: dict[str, Any], vector: Tensor) -> Direction:
    hook = entry["hook"]
    if hook not in HOOKS:
        raise UserError(f"unknown hook {hook!r}: expected one of {', '.join(HOOKS)}")
    fields = {
        k: entry[k] for k in ("persona", "method", "auc", "threshold", "source", "mean", "sd", "fitted_at")
    }
    return Direction(vector, Site(int(entry["layer"]), hook, entry["position"]), **fields)


def _text_field(reader: GGUFReader, name: str) -> str:
    field = reader.get_field(name)
    return str(field.contents()) if field is not None else ""


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    return Path(path)
