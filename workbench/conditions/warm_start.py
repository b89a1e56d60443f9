"""Kind `warm_start`: prompts of a search that starts from a sentence, found in a notebook or an ablation."""

from workbench.conditions.condition_registry import ConditionKind, register_kind

register_kind(ConditionKind("warm_start", "found", "gradient search that starts from a sentence"))
