"""Raise an error for scores that are not finite, naming the prompt and the block where the fault begins."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Runner, first_not_finite
from workbench.search.scored_prompts import ScoredPrompts


def check_finite(runner: Runner, contexts: Contexts, *batches: ScoredPrompts) -> None:
    """Raise UserError if a scored prompt has a score that is not finite; the message names where it arises.

    A cross-entropy of +inf is accepted, since it means "not computed". The model runs again, only after such
    a score, to find the first block with the fault.

    Args:
        runner: The model's runner.
        contexts: The search's questions, rendered as chats into which the prompts are inserted.
        *batches: Scored prompts to check.
    """
    for scored in batches:
        scored = scored.on_host()
        bad = ~scored.objective.isfinite() | scored.cross_entropy.isnan()
        if bad.any():
            ids = scored.ids[int(bad.nonzero()[0, 0])].tolist()
            found = (first_not_finite(runner, context.sequence(ids)) for context in contexts)
            where = next(
                (place for place in found if place),
                "the objective itself, for the model's own values are finite",
            )
            raise UserError(
                f"the prompt {runner.decode(ids)!r} has a score that is no finite number: {where}"
            )


def check_prefix(runner: Runner, ids: Sequence[int]) -> None:
    """Raise UserError if the model's values are not finite on the chat text left of the prompt.

    Args:
        runner: The model's runner.
        ids: Token ids of that text.
    """
    where = first_not_finite(runner, ids)
    if where:
        raise UserError(f"the text left of the prompt already has values that are not finite: {where}")
