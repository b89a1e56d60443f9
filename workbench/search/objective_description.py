"""An objective as plain data: what a frontier's file says it maximised, and what a checkpoint is recognised by."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def describe(value: Any) -> Any:
    """Numbers, texts, lists and dictionaries. A dataclass is {"type": its name, **fields}; a tensor is its shape and sixteen hex
    digits of its content; anything else is its class's name."""
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return {"type": "tensor", "shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest[:16]}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: describe(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
