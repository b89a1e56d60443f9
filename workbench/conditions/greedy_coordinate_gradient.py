"""Condition `gcg`: the attack GCG (Zou et al., arXiv 2307.15043) on the answer's log-odds."""

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
    return {"gcg": answer_log_odds()}


register_kind(
    ConditionKind(
        "gcg",
        "answer",
        "greedy coordinate gradient on the answer",
        label="GCG",
        control_of=("internals_matter",),
    )
)
register_study_condition(
    StudyCondition(
        "gcg",
        "gcg",
        "GCG on the answer's log-odds",
        search=SearchRecipe(_objectives, method="gcg", reads_answer=True),
        order=95,
    )
)
