"""A score that is no number is an error that names the candidate and the block where it began, never a quiet loser."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Runner
from workbench.search.scored_prompts import ScoredPrompts


def check_finite(runner: Runner, contexts: Contexts, *batches: ScoredPrompts) -> None:
    """UserError for the first prompt whose objective is not finite or whose fluency is no number (+inf means "not needed");
    blocks are run again only then."""
    for scored in batches:
        bad = ~scored.objective.isfinite() | scored.cross_entropy.isnan()
        if bad.any():
            ids = scored.ids[int(bad.nonzero()[0, 0])].tolist()
            found = (first_bad(runner, context.ids(ids)) for context in contexts)
            where = next((place for place in found if place), "the objective itself, for the model's own values are finite")
            raise UserError(f"the prompt {runner.decode(ids)!r} has a score that is no finite number: {where}")


def check_prefix(runner: Runner, ids: Sequence[int]) -> None:
    """UserError where the model's values are not finite on the text that stands left of every prompt."""
    where = first_bad(runner, ids)
    if where:
        raise UserError(f"the text left of the prompt already has values that are not finite: {where}")


@torch.no_grad()
def first_bad(runner: Runner, ids: Sequence[int]) -> str | None:
    """The first place on the way up whose values are not finite: the embedding, a block, the logits; None if all are."""
    resid = runner.embed(torch.tensor([list(ids)], device=runner.device))
    name = "the embedding"
    for block in range(runner.shape.n_layers + 1):
        if not resid.isfinite().all():
            return f"{name} ({runner.dtype}) is the first that is not; check the model's dtype and weights"
        if block < runner.shape.n_layers:
            name, resid = f"block {block}", runner.run(resid, block, block + 1)[0]
    return None if runner.logits(resid).isfinite().all() else f"the logits ({runner.dtype}) are the first; check the unembedding"
