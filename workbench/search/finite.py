"""A score that is no number is an error that names the candidate and the block where it began, never a quiet loser."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Runner
from workbench.search.scored import Scored


def check_finite(runner: Runner, contexts: Contexts, *batches: Scored) -> None:
    """UserError for the first prompt whose objective is not finite or whose fluency is no number (+inf means "not needed");
    blocks are run again only then."""
    for scored in batches:
        bad = ~scored.objective.isfinite() | scored.fluency.isnan()
        if bad.any():
            ids = scored.ids[int(bad.nonzero()[0, 0])].tolist()
            raise UserError(f"the prompt {runner.decode(ids)!r} has a score that is no finite number: {_where(runner, contexts, ids)}")


def _where(runner: Runner, contexts: Contexts, ids: list[int]) -> str:
    """The first block whose residuals are not finite, over all contexts."""
    for context in contexts:
        resid = runner.embed(torch.tensor([context.ids(ids)], device=runner.device))
        stages: list[tuple[str, Tensor]] = [("the embedding", resid)]
        for block in range(runner.shape.n_layers):
            resid, _ = runner.run(resid, block, block + 1)
            stages.append((f"block {block}", resid))
        for name, values in [*stages, ("the logits", runner.logits(resid[:, -1]))]:
            if not values.isfinite().all():
                return f"{name} of the model ({runner.dtype}) is the first whose values are not finite; check its dtype and weights"
    return "the model's values are finite, so the objective's own numbers are not"
