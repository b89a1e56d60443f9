"""Who proposes prompts: a function from a request to a reply. A local model, an OpenAI-compatible endpoint, or a script."""

from __future__ import annotations

from typing import Any

from workbench.conditions.build_context import BuildContext
from workbench.contexts import Contexts, encode_prompt
from workbench.errors import UserError
from workbench.evaluation.chat_models import Ask as Proposer
from workbench.evaluation.chat_models import Endpoint, LocalModel, MissingReply, ScriptedModel, whole_lines
from workbench.models import load_model, runner_for

__all__ = ["Endpoint", "LocalModel", "MissingReply", "Proposer", "ScriptedModel", "fits", "models_behind", "study_proposer", "whole_lines"]


def models_behind(proposer: Proposer) -> tuple[Any, ...]:
    """Models of the workbench whose running is the proposer's cost; an endpoint's is not ours to count."""
    return (proposer.model,) if isinstance(proposer, LocalModel) else ()


def fits(model: Any, contexts: Contexts, text: str, longest: int) -> bool:
    """Does the text hold a token, keep its tokens in the slot of every context, and have at most `longest` of them?"""
    if not text.strip() or len(runner_for(model).encode(text)) > longest:
        return False
    try:
        return len(encode_prompt(model, contexts, text)) <= longest
    except UserError:
        return False


def study_proposer(context: BuildContext) -> Proposer:
    """Who writes prompts in a study: the studied model, another one of the workbench, or a model at an endpoint."""
    who, own = context.study.proposer, context.study.model
    if who.base_url is not None:
        return Endpoint(who.base_url, str(who.model), who.key_variable, who.temperature)
    model = context.model if who.model is None else load_model(who.model, own.device, own.dtype)
    return LocalModel(model, temperature=who.temperature or 0.0, seed=context.seed)
