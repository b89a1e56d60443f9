"""Kind `random_updates`: prompts of the same search with random swaps, found in a notebook or an ablation."""

from workbench.conditions.condition_registry import ConditionKind, register_kind

register_kind(
    ConditionKind(
        "random_updates",
        "control",
        "the same search with random instead of gradient-chosen swaps",
        control_of=("optimizer_matters",),
    )
)
