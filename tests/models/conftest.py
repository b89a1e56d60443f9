"""Tiny checkpoints and the models made of them, each once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tests.tiny import tiny_checkpoint
from workbench.models import Runner, runner_for
from workbench.models.loading import load_model


@dataclass(frozen=True)
class Bench:
    """Checkpoints, Hugging Face models and runners by family."""

    directory: Callable[[str], Path]
    reference: Callable[[str, torch.dtype], PreTrainedModel]
    runner: Callable[[str, str, str], Runner]

    def logits(self, family: str, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Hugging Face's own, float32."""
        with torch.no_grad():
            return self.reference(family, torch.float32)(input_ids=ids).logits


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    @cache
    def directory(family: str) -> Path:
        return tiny_checkpoint(family, tmp_path_factory.mktemp("tiny") / family)

    @cache
    def reference(family: str, dtype: torch.dtype) -> PreTrainedModel:
        cls = AutoModelForImageTextToText if family == "gemma3_multimodal" else AutoModelForCausalLM
        return cls.from_pretrained(directory(family), attn_implementation="eager", dtype=dtype).eval()

    @cache
    def runner(family: str, backend: str, dtype: str = "float32") -> Runner:
        return runner_for(load_model(directory(family), backend=backend, dtype=dtype))

    return Bench(directory, reference, runner)


@pytest.fixture
def ids() -> Int[Tensor, "batch pos"]:
    """Three random sequences of 20 tokens, more than three times the families' sliding window of 6."""
    return torch.randint(4, 330, (3, 20), generator=torch.Generator().manual_seed(0))
