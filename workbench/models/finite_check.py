"""Find the first block of a model after which values are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.models.runner import Runner


@torch.no_grad()
def first_not_finite(runner: Runner, ids: Sequence[int]) -> str | None:
    """Name the first stage of a model whose values are not finite in a pass over `ids`.

    Stages are the embedding, each block and the logits. The result includes the dtype and advice.

    Args:
        runner: The model's runner.
        ids: Token ids of one sequence.

    Returns:
        Half a sentence for an error message, or None if all values are finite.
    """
    resid = runner.embed(torch.tensor([list(ids)], device=runner.device))
    name = "the embedding"
    for block in range(runner.shape.n_layers + 1):
        if not resid.isfinite().all():
            return f"{name} ({runner.dtype}) is the first that is not; check the model's dtype and weights"
        if block < runner.shape.n_layers:
            name, resid = f"block {block}", runner.run(resid, block, block + 1)[0]
    return (
        None
        if runner.logits(resid).isfinite().all()
        else f"the logits ({runner.dtype}) are the first; check the unembedding"
    )


def not_finite(runner: Runner, ids: Sequence[int]) -> str:
    """Return a sentence that names the first stage (such as a block) with values that are not finite.

    Args:
        runner: The model's runner.
        ids: Token ids of the sequence that is run.
    """
    return first_not_finite(runner, ids) or "the model's own values are all finite"
