"""Cross-entropy of a comparison's prompts under a second model that no search optimized against.

A search that limits the cross-entropy of its prompts measures it with the model that it optimizes. A second
model (the same one without its adapter, or any other) shows whether the prompts read naturally or only
exploit the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.comparison.comparison import Comparison
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts
from workbench.errors import UserError


def judged(comparison: Comparison, judge: Any, contexts: Contexts, name: str) -> Comparison:
    """Add the cross-entropy of every prompt under a second model to a comparison.

    It shows whether the prompts are fluent for a model that no search optimized against.

    Args:
        comparison: Comparison on the model for which the prompts were found.
        judge: The second model, a HookedTransformer or TransformerBridge.
        contexts: Questions rendered for the second model, with the prompt at the same place in the chat.
        name: Name of the second model in the record.

    Returns:
        The comparison with `judge_cross_entropy` (nats per token) for each condition with a prompt; None if
        the second model's tokenizer does not keep the prompt's tokens when it is put into the chat.

    Example:
        >>> table = wb.compare(model, data.test.take(4), ["be honest"])
        >>> contexts = wb.make_contexts(model, data.test, n=1)
        >>> wb.judged(table, model, contexts, "itself").table["judge_cross_entropy"].notna().tolist()
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
