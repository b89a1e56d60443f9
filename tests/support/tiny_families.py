"""Tiny checkpoints and the models made of them, each once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.models import Runner, runner_for
from workbench.models.loading import load_model


@dataclass(frozen=True)
class TinyFamilies:
    """Checkpoints, Hugging Face models and runners by family."""

    directory: Callable[[str], Path]
    reference: Callable[[str, torch.dtype], PreTrainedModel]
    runner: Callable[[str, str, str], Runner]

    def logits(self, family: str, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Hugging Face's own, float32."""
        with torch.no_grad():
            return self.reference(family, torch.float32)(input_ids=ids).logits


def tiny_families(root: Path) -> TinyFamilies:
    """Checkpoints below `root`; each checkpoint, model and runner is made once."""

    @cache
    def directory(family: str) -> Path:
        return tiny_checkpoint(family, root / family)

    @cache
    def reference(family: str, dtype: torch.dtype) -> PreTrainedModel:
        cls = AutoModelForImageTextToText if family == "gemma3_multimodal" else AutoModelForCausalLM
        return cls.from_pretrained(directory(family), attn_implementation="eager", dtype=dtype).eval()

    @cache
    def runner(family: str, backend: str, dtype: str = "float32") -> Runner:
        return runner_for(load_model(directory(family), backend=backend, dtype=dtype))

    return TinyFamilies(directory, reference, runner)
