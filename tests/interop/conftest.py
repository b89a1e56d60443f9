"""A tiny model in Hugging Face's files, in the workbench and in transformers, for round trips through other packages."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.directions import Direction
from workbench.interventions import steer
from workbench.models import Runner, Site, load_model, runner_for

LAYERS = (1, 2)


class Pair(NamedTuple):
    """One model twice. directions: one at each of LAYERS, of length 3 and 4."""

    directory: Path
    runner: Runner
    theirs: PreTrainedModel
    directions: tuple[Direction, ...]

    def steered(self, ids: Tensor, directions: tuple[Direction, ...] | None = None) -> Tensor:
        """Log-probabilities of the workbench with each direction added once, at its own length."""
        first, *rest = directions or self.directions
        with torch.no_grad(), steer(self.runner, first, first.norm):
            if rest:
                return self.steered(ids, tuple(rest))
            resid, _ = self.runner.run(self.runner.embed(ids), 0, self.runner.shape.n_layers)
            return self.runner.logits(resid).log_softmax(-1)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tiny_checkpoint("llama", tmp_path_factory.mktemp("tiny") / "llama", num_hidden_layers=4)
    runner = runner_for(load_model(directory))
    generator = torch.Generator().manual_seed(0)
    vectors = [
        torch.nn.functional.normalize(torch.randn(runner.shape.d_model, generator=generator), dim=0) * n
        for n in (3.0, 4.0)
    ]
    made = tuple(
        Direction(v, Site(layer), "toy", "mean_difference") for layer, v in zip(LAYERS, vectors, strict=True)
    )
    return Pair(
        directory, runner, AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval(), made
    )


@pytest.fixture(scope="session")
def ids() -> Tensor:
    return torch.randint(8, 300, (2, 14), generator=torch.Generator().manual_seed(1))
