"""A search that starts from a sentence, as a kind for prompts that a notebook or an ablation finds."""

from workbench.conditions.condition_registry import ConditionKind, register_kind

register_kind(ConditionKind("warm_start", "found", "gradient search that starts from a sentence"))
