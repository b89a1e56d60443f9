"""The same search with random instead of gradient-chosen swaps, as a kind for prompts that a notebook or an ablation finds."""

from workbench.conditions.condition_registry import ConditionKind, register_kind

register_kind(
    ConditionKind(
        "random_updates",
        "control",
        "the same search with random instead of gradient-chosen swaps",
        control_of=("optimizer_matters",),
    )
)
