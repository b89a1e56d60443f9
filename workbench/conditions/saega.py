"""SAEGA (arXiv 2601.02896): fluent prompt search that maximises the persona's SAE latents."""

from __future__ import annotations

from workbench.conditions.build_context import SearchContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.objectives import Objective, latent_activation


def _objectives(context: SearchContext) -> dict[str, Objective]:
    assert context.sae is not None and context.latents is not None
    return {"saega": latent_activation(context.sae, context.latents.ids, context.latents.weights)}


register_kind(ConditionKind("saega", "found", "gradient search on SAE latents", label="SAEGA"))
register_study_condition(
    StudyCondition(
        "saega",
        "saega",
        "search on the persona's SAE latents",
        search=SearchRecipe(_objectives, needs_sae=True),
        is_default=True,
        order=60,
    )
)
