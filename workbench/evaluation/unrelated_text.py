"""How a prompt changes the cross-entropy of unrelated text ("generative sanity" in arXiv 2601.02896)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workbench.contexts import Slot
from workbench.errors import UserError
from workbench.evaluation.continuation_log_probs import Continuation, ask, token_log_probs
from workbench.evaluation.scorecard_metric import ScorecardMetric
from workbench.models import Runner, runner_for
from workbench.statistics import cluster_interval


def text_cross_entropies(
    model: Any, texts: Sequence[str], prompt: str | None = None, slot: Slot = "system"
) -> list[tuple[float, int]]:
    """Compute the mean cross-entropy of each text, given as the user's message after a prompt.

    Edits of the model that are active (steering, for example) are applied.

    Args:
        model: A loaded model or its runner.
        texts: Texts unrelated to the persona.
        prompt: Text of the prompt. None: no prompt.
        slot: "system" puts the prompt into the system message; any other slot puts it before the text in the
            user's message.

    Returns:
        For each text, its mean cross-entropy in nats per token and its number of tokens.
    """
    runner = runner_for(model)
    if not texts:
        raise UserError("expected at least one text to measure")
    rows = [_row(runner, text, prompt, slot) for text in texts]
    return [(-float(found.mean()), len(found)) for found in token_log_probs(runner, rows)]


def perplexity(
    model: Any, texts: Sequence[str], prompt: str | None = None, slot: Slot = "system"
) -> ScorecardMetric:
    """Compute the mean cross-entropy of unrelated texts in nats per token; its exponential is the perplexity.

    Args:
        model: A loaded model or its runner.
        texts: Texts unrelated to the persona.
        prompt: Text of the prompt. None: no prompt.
        slot: Place in the chat where the prompt goes, as in `text_cross_entropies`.

    Returns:
        A metric with an interval over texts; its chance level is log d_vocab.
    """
    values = [value for value, _ in text_cross_entropies(model, texts, prompt, slot)]
    interval = cluster_interval(values, [f"text {i}" for i in range(len(values))])
    chance = math.log(runner_for(model).shape.d_vocab)
    return ScorecardMetric(
        "unrelated text",
        interval,
        chance,
        "cross-entropy of the user's unrelated words; lower is more usual",
        unit="nats per token",
    )


def _row(runner: Runner, text: str, prompt: str | None, slot: Slot) -> Continuation:
    where: Slot = "system" if slot == "system" else "before_question"
    before, after = ask(runner, text, prompt, where).rsplit(text, 1)
    ids = runner.encode(before + text + after)
    start, stop = max(1, len(runner.encode(before))), len(ids) - len(runner.encode(after))
    return Continuation(tuple(ids[:stop]), start)
