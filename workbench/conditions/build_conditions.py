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
    """Build the "no prompt" condition and every named condition, in the order of the names.

    A name whose condition needs an SAE is skipped in a study without one.

    Args:
        names: Names of study conditions, keys of `STUDY_CONDITIONS`.
        context: The model, data, directions and chosen prompts that the conditions are built from.

    Returns:
        The conditions; a name with several prompts or settings gives several.

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
    """Collect the searches that the named conditions need.

    Args:
        names: Names of study conditions; a condition without a search adds nothing.
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
    """Return the prompts that the searches of one condition found and that were chosen on selection data.

    Each prompt has its rate on the search questions as `search_rate`.

    Args:
        context: The study's values with the searches' frontiers (`chosen`).
        name: Name of the study condition, the first word of its searches' names.

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
