"""Check that a model fits into a GPU's memory before its weights are read."""

from __future__ import annotations

import torch
from safetensors import safe_open

from workbench.errors import UserError
from workbench.models.memory_in_use import free_memory
from workbench.models.model_directory import ModelDirectory, Place, spreads

#: Fraction of a GPU's free memory that weights may take; the remainder is needed to run the model.
USABLE = 0.95


def weight_numbers(checkpoint: ModelDirectory) -> int:
    """Count the weights in a checkpoint's files (elements, not bytes); only the files' headers are read."""
    total = 0
    for shard in checkpoint.shards:
        with safe_open(shard, framework="pt") as file:
            total += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
    return total


def refuse_too_large(checkpoint: ModelDirectory, dtype: torch.dtype, device: Place, name: str) -> None:
    """Raise UserError if the weights do not fit into the GPU's free memory.

    The message advises a dtype or device with which they would fit. Only single CUDA devices are checked, not
    CPUs, MPS or device maps.

    Args:
        checkpoint: The checked model directory.
        dtype: Dtype in which the weights are loaded.
        device: Target device or device map.
        name: The model's name, for the message.
    """
    if spreads(device) or not str(device).startswith("cuda"):
        return
    free = free_memory(torch.device(str(device)))
    numbers = weight_numbers(checkpoint)
    if free is None or numbers * dtype.itemsize <= USABLE * free:
        return
    short, asked = str(dtype).removeprefix("torch."), f"{numbers * dtype.itemsize / 1e9:.1f} GB"
    fits = dtype.itemsize > 2 and 2 * numbers <= USABLE * free
    advice = (
        f"bfloat16 fits ({2 * numbers / 1e9:.1f} GB)"
        if fits
        else "a smaller model, or device balanced over several GPUs, would fit"
    )
    raise UserError(
        f"{name}: its weights take {asked} in {short}, and {device} has {free / 1e9:.1f} GB free; {advice}"
    )
