"""Condition `random_direction`: RESGA's search along random directions with the residuals' covariance.

As a control it shows whether the persona's direction does more than any direction of the same spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.conditions.build_context import SearchContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.objectives import Objective, projection

if TYPE_CHECKING:
    from workbench.study.study_settings import Study


def _objectives(context: SearchContext) -> dict[str, Objective]:
    kind = context.study.protocol.projection
    return {
        f"random_direction {i}": projection(direction, kind)
        for i, direction in enumerate(context.random_directions, start=1)
    }


def _names(study: Study) -> list[str]:
    return [f"random_direction {i}" for i in range(1, study.random_directions + 1)]


register_kind(
    ConditionKind(
        "random_direction",
        "control",
        "the same search along directions without a meaning",
        control_of=("direction_is_specific",),
        same_search_as=("resga", "warm_start"),
    )
)
register_study_condition(
    StudyCondition(
        "random_direction",
        "random_direction",
        "search along each of `random_directions` random directions",
        search=SearchRecipe(_objectives, names=_names),
        is_default=True,
        order=80,
    )
)
