"""RESGA (arXiv 2601.02896): fluent prompt search along the persona's direction in the residual stream."""

from __future__ import annotations

from workbench.conditions.build_context import SearchContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.objectives import Objective, projection


def direction_objective(context: SearchContext) -> Objective:
    """Return RESGA's objective: the projection of the residual stream on the study's direction.

    The study's setting `protocol.projection` says whether it is raw or in standard deviations.
    """
    return projection(context.direction, context.study.protocol.projection)


def _objectives(context: SearchContext) -> dict[str, Objective]:
    return {"resga": direction_objective(context)}


register_kind(ConditionKind("resga", "found", "gradient search along the persona's direction", label="RESGA"))
register_study_condition(
    StudyCondition(
        "resga",
        "resga",
        "search along the persona's direction",
        search=SearchRecipe(_objectives),
        is_default=True,
        order=50,
    )
)
