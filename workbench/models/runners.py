"""Get the runner of a model, by its backend: HookedTransformer or TransformerBridge."""

from __future__ import annotations

from typing import Any

from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

from workbench.errors import UserError
from workbench.models.bridge_runner import BridgeRunner
from workbench.models.hooked_runner import HookedRunner
from workbench.models.runner import Runner

_KEPT_AS = "_workbench_runner"


def runner_for(model: Any) -> Runner:
    """Return the runner of a TransformerLens model, which is made once per model.

    Args:
        model: A HookedTransformer, a TransformerBridge, or a `Runner`, which is returned as it is.

    Returns:
        The model's `Runner`.

    Raises:
        UserError: The model is neither a HookedTransformer nor a TransformerBridge.

    Example:
        >>> wb.runner_for(model) is wb.runner_for(model)
        True
    """
    if isinstance(model, Runner):
        return model
    kept = getattr(model, "__dict__", {})
    if _KEPT_AS not in kept:
        kept[_KEPT_AS] = _make_runner(model)
    return kept[_KEPT_AS]


def _make_runner(model: Any) -> Runner:
    if isinstance(model, HookedTransformer):
        return HookedRunner(model)
    if isinstance(model, TransformerBridge):
        return BridgeRunner(model)
    raise UserError(f"expected a HookedTransformer or a TransformerBridge, found {type(model).__name__}")
