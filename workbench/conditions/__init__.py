"""What a comparison compares: one file per condition, with one interface (`Condition`).

All conditions are in one registry (`CONDITION_KINDS`).
"""

from workbench.conditions.build_conditions import build_conditions, search_objectives
from workbench.conditions.build_context import BuildContext, SearchContext
from workbench.conditions.capability_guard import CapabilityGuard, true_contexts
from workbench.conditions.condition import Condition, spending
from workbench.conditions.condition_label import condition_label, stage_label
from workbench.conditions.condition_registry import (
    CLAIMS,
    CONDITION_KINDS,
    GROUPS,
    STUDY_CONDITIONS,
    Claim,
    ConditionKind,
    SearchRecipe,
    StudyCondition,
    claim_label,
    default_conditions,
    default_primary,
    kind_label,
    register_kind,
    register_study_condition,
)
from workbench.conditions.constant_answer import ConstantAnswer, constant_answers
from workbench.conditions.few_shot import few_shot
from workbench.conditions.found_prompts import Found
from workbench.conditions.gepa_proposed import GEPAProposed
from workbench.conditions.latent_clamp import LatentClamp
from workbench.conditions.llm_proposed import LLMProposed
from workbench.conditions.manual_prompts import ManualPrompts
from workbench.conditions.neutral_text import NEUTRAL_MEAN, MeanOfPrompts, neutral_texts
from workbench.conditions.no_prompt import NoPrompt
from workbench.conditions.prompt import Prompt
from workbench.conditions.random_text import RandomText
from workbench.conditions.random_tokens import RandomTokens
from workbench.conditions.soft_prompt import PromptTuning, SoftPrompt
from workbench.conditions.steering import Steering

__all__ = [
    "CLAIMS",
    "CONDITION_KINDS",
    "GROUPS",
    "NEUTRAL_MEAN",
    "STUDY_CONDITIONS",
    "BuildContext",
    "CapabilityGuard",
    "Claim",
    "Condition",
    "ConditionKind",
    "ConstantAnswer",
    "Found",
    "GEPAProposed",
    "LLMProposed",
    "LatentClamp",
    "ManualPrompts",
    "MeanOfPrompts",
    "NoPrompt",
    "Prompt",
    "PromptTuning",
    "RandomText",
    "RandomTokens",
    "SearchContext",
    "SearchRecipe",
    "SoftPrompt",
    "Steering",
    "StudyCondition",
    "build_conditions",
    "claim_label",
    "condition_label",
    "constant_answers",
    "default_conditions",
    "default_primary",
    "few_shot",
    "kind_label",
    "neutral_texts",
    "register_kind",
    "register_study_condition",
    "search_objectives",
    "spending",
    "stage_label",
    "true_contexts",
]
