"""The fluency of a comparison's prompts, judged a second time by a model that no search optimised.

A search that keeps its prompts under a limit of cross-entropy is judged by the model that it searched with;
another model (the same one without its adapter, or any other) shows whether the prompts read naturally or
only exploit that one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.comparison.comparison import Comparison
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts
from workbench.errors import UserError


def judged(comparison: Comparison, judge: Any, contexts: Contexts, name: str) -> Comparison:
    """The comparison with every prompt's cross-entropy under a second model.

    Args:
        comparison: Of the searched model.
        judge: The second model; a HookedTransformer or TransformerBridge.
        contexts: The judge's own contexts of the same slot.
        name: Of the judge, for the record.

    Returns:
        The comparison whose entries with a prompt have `judge_cross_entropy`, nats a token; None where the
        prompt's tokens do not survive in the judge's tokenizer.

    Example:
        >>> table = wb.compare(model, data.test.take(4), ["be honest"])
        >>> wb.judged(table, model, wb.make_contexts(model, data.test, n=1), "itself").table["judge_cross_entropy"].notna().tolist()
        [False, True]
    """
    entries = tuple(
        replace(entry, judge_cross_entropy=_read(judge, contexts, entry.condition.prompt))
        for entry in comparison.entries
    )
    return replace(comparison, entries=entries, judge=name)


def _read(judge: Any, contexts: Contexts, prompt: str | None) -> float | None:
    if not prompt:
        return None
    try:
        return prompt_cross_entropy(judge, contexts, prompt)
    except UserError:
        return None
