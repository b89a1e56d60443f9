"""Condition `random_search`: RESGA's objective with candidates drawn at random instead of by gradient."""

from __future__ import annotations

from workbench.conditions.build_context import SearchContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.conditions.resga import direction_objective
from workbench.objectives import Objective


def _objectives(context: SearchContext) -> dict[str, Objective]:
    return {"random_search": direction_objective(context)}


register_kind(
    ConditionKind(
        "random_search",
        "control",
        "as many tries, picked at random instead of by gradient",
        control_of=("optimizer_matters",),
        same_search_as=("resga", "warm_start"),
    )
)
register_study_condition(
    StudyCondition(
        "random_search",
        "random_search",
        "random swaps on the objective of `resga`",
        search=SearchRecipe(_objectives, method="random"),
        is_default=True,
        order=90,
    )
)
