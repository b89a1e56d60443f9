"""What the baselines maximise: the projection of the last token's residual after block `layer` on a unit vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

Text = tuple[Sequence[int], Sequence[int]]  # ids left of the prompt, ids right of it


@dataclass(frozen=True)
class Target:
    """vector: unit length. layer: the block (counted from 0) whose output is read."""

    vector: Float[Tensor, " d_model"]
    layer: int

    @contextmanager
    def reading(self, model: PreTrainedModel) -> Iterator[list[Float[Tensor, " batch"]]]:
        """A list that holds the objective of the pass that is run inside, by a forward hook."""
        read: list[Tensor] = []

        def hook(module: torch.nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            resid = output[0] if isinstance(output, tuple) else output
            read.append(resid[:, -1].float() @ self.vector)

        handle = model.model.layers[self.layer].register_forward_hook(hook)
        try:
            yield read
        finally:
            handle.remove()
