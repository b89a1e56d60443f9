"""Condition `answer_objective`: the same search as RESGA's, but it maximises the answer's log-odds.

RESGA and SAEGA, which use the model's internals, are compared with it at equal cost.
"""

from __future__ import annotations

from workbench.conditions.build_context import SearchContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.objectives import Objective, answer_log_odds


def _objectives(context: SearchContext) -> dict[str, Objective]:
    return {"answer_objective": answer_log_odds()}


register_kind(
    ConditionKind(
        "answer_objective",
        "answer",
        "the same search, aiming at the answer itself",
        control_of=("internals_matter",),
    )
)
register_study_condition(
    StudyCondition(
        "answer_objective",
        "answer_objective",
        "search for the answer's log-odds",
        search=SearchRecipe(_objectives, reads_answer=True),
        is_default=True,
        order=70,
    )
)
