"""Build the conditions and the searches of a study from the condition names that its settings list."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.conditions.build_context import BuildContext, SearchContext
from workbench.conditions.condition import Condition
from workbench.conditions.condition_registry import STUDY_CONDITIONS
from workbench.conditions.found_prompts import Found
from workbench.conditions.no_prompt import NoPrompt
from workbench.conditions.prompt import Prompt
from workbench.forced_choice import answer
from workbench.objectives import Objective


def build_conditions(names: Sequence[str], context: BuildContext) -> list[Condition]:
    """Build the conditions that a study compares: "no prompt" first, then those named, in order.

    A condition is a prompt, an intervention such as a steering vector, or a reference point, under which the
    model answers the test questions. In a study without an SAE, names whose condition needs one are skipped.

    Args:
        names: Names of study conditions, keys of `STUDY_CONDITIONS`.
        context: The model, data, directions and chosen prompts that the conditions are built from.

    Returns:
        The conditions. One name can give several, for example one for each seed of a random prompt.

    Raises:
        UserError: A name is unknown, or something that a condition needs is missing.
    """
    conditions: list[Condition] = [NoPrompt()]
    for name in names:
        entry = STUDY_CONDITIONS[name]
        if entry.search is not None:
            conditions += found_prompts(context, name)
        if entry.build is not None and (context.has_latents or not entry.needs_sae):
            conditions += entry.build(context)
    return conditions


def search_objectives(names: Sequence[str], context: SearchContext) -> dict[str, tuple[Objective, str]]:
    """Collect the searches for prompts that a study's conditions need.

    A condition is one of the things that a study compares, such as the prompts that one search method found.

    Args:
        names: Names of study conditions; those without a search add nothing.
        context: The study's settings, directions, SAE and latents.

    Returns:
        Mapping from the name of each search to its objective (plus = more of the persona, not yet calibrated)
        and the name of its search method.
    """
    found: dict[str, tuple[Objective, str]] = {}
    for recipe in (STUDY_CONDITIONS[name].search for name in names):
        if recipe is not None and (context.has_latents or not recipe.needs_sae):
            method = recipe.method or context.study.search.method
            found |= {key: (objective, method) for key, objective in recipe.objectives(context).items()}
    return found


def found_prompts(context: BuildContext, name: str) -> list[Prompt]:
    """Return the prompt that each search of one study condition found and the selection questions chose.

    `search_rate` of a prompt is the fraction of the search questions that the model answers as the persona
    under it.

    Args:
        context: The study's values; its `chosen` holds the result of each search, with the chosen prompt
            marked.
        name: Name of the study condition; the names of its searches begin with it.

    Returns:
        One prompt for each search of the condition.
    """
    return [_found(context, search) for search in context.chosen if search.split()[0] == name]


def _found(context: BuildContext, search: str) -> Prompt:
    frontier = context.chosen[search]
    best = next(c for c in frontier.candidates if c.chosen)
    kind, searched = (
        STUDY_CONDITIONS[search.split()[0]].kind,
        answer(context.model, context.search_questions, best.ids).rate,
    )
    return Found(
        best.text,
        kind,
        frontier.method,
        best.cross_entropy,
        frontier.cost,
        best.selection_rate,
        search,
        searched,
    )
