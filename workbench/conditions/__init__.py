"""The things that are compared, one file each, all under one interface (`Condition`)."""

from workbench.conditions.capability_guard import CapabilityGuard, true_contexts
from workbench.conditions.condition import Condition, Kind, spending
from workbench.conditions.constant_answer import ConstantAnswer, constant_answers
from workbench.conditions.few_shot import few_shot
from workbench.conditions.gepa_proposed import GEPAProposed
from workbench.conditions.latent_clamp import LatentClamp
from workbench.conditions.llm_proposed import LLMProposed
from workbench.conditions.prompts import Found, ManualPrompts, NoPrompt, Prompt
from workbench.conditions.random_text import RandomText
from workbench.conditions.random_tokens import RandomTokens
from workbench.conditions.soft_prompt import SoftPrompt
from workbench.conditions.steering import Steering

__all__ = [
    "CapabilityGuard",
    "Condition",
    "ConstantAnswer",
    "Found",
    "GEPAProposed",
    "Kind",
    "LLMProposed",
    "LatentClamp",
    "ManualPrompts",
    "NoPrompt",
    "Prompt",
    "RandomText",
    "RandomTokens",
    "SoftPrompt",
    "Steering",
    "constant_answers",
    "few_shot",
    "spending",
    "true_contexts",
]
