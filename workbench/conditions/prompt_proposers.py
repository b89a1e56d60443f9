"""Proposers of prompts: a local model, an endpoint or a script that replies to a request."""

from __future__ import annotations

import os
from typing import Any

from workbench.conditions.build_context import BuildContext
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.evaluation.chat_models import Ask as Proposer
from workbench.evaluation.chat_models import Endpoint, LocalModel, MissingReply, ScriptedModel, whole_lines
from workbench.models import load_model, runner_for
from workbench.prompt_tokens import encode_prompt

__all__ = [
    "Endpoint",
    "LocalModel",
    "MissingReply",
    "Proposer",
    "ScriptedModel",
    "fits",
    "models_of",
    "study_proposer",
    "whole_lines",
]


def models_of(proposer: Proposer) -> tuple[Any, ...]:
    """Return the models whose computation is the cost of a proposer of prompts.

    That is a local model; the computation at an endpoint is not counted.
    """
    return (proposer.model,) if isinstance(proposer, LocalModel) else ()


def fits(model: Any, contexts: Contexts, text: str, longest: int) -> bool:
    """Whether a prompt fits into the slot of every context.

    Args:
        model: A loaded model or its runner.
        contexts: Questions with a slot, the place where a prompt goes.
        text: The prompt.
        longest: Largest allowed number of tokens.

    Returns:
        True if the text has 1 to `longest` tokens and they stay the same inside the slot.
    """
    if not text.strip() or len(runner_for(model).encode(text)) > longest:
        return False
    try:
        return len(encode_prompt(model, contexts, text)) <= longest
    except UserError:
        return False


def study_proposer(context: BuildContext) -> Proposer:
    """Return the language model that proposes prompts, as the study's settings name it.

    It is the studied model, another local model, or a model at an OpenAI-compatible endpoint.
    """
    who, own = context.study.proposer, context.study.model
    if who.base_url is not None:
        check_endpoint(who.base_url, who.key_variable)
        return Endpoint(who.base_url, str(who.model), who.key_variable, who.temperature)
    model = context.model if who.model is None else load_model(who.model, own.device, own.dtype)
    return LocalModel(model, temperature=who.temperature or 0.0, seed=context.seed)


def check_endpoint(base_url: str, key_variable: str | None) -> None:
    """Check that the user has allowed an endpoint.

    A study file may come from somebody else, so it alone may not choose where requests and keys go.

    Args:
        base_url: The endpoint that the study names.
        key_variable: Environment variable whose value would be sent to it as the key, if any.

    Raises:
        UserError: The environment variable WORKBENCH_ENDPOINTS (entries "URL" or "URL=KEY_VARIABLE",
            separated by spaces) does not allow this pair.
    """
    allowed = {
        entry.partition("=")[0]: entry.partition("=")[2]
        for entry in os.environ.get("WORKBENCH_ENDPOINTS", "").split()
    }
    if base_url not in allowed or (key_variable or "") not in ("", allowed[base_url]):
        wanted = f"{base_url}={key_variable}" if key_variable else base_url
        raise UserError(
            f"the study names the endpoint {base_url}: allow it yourself with WORKBENCH_ENDPOINTS='{wanted}' in the environment"
        )
