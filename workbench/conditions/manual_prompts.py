"""Prompts that people would write: a baseline that beats most steering methods (AxBench, Wu et al. 2025).

Several are tried, and the best is chosen on *selection* data, like a prompt found by a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import as_contexts, signed, spending
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.conditions.prompt import Prompt
from workbench.contexts import Contexts, Slot
from workbench.errors import UserError
from workbench.forced_choice import answer_prompts
from workbench.personas import Sign, Split


@dataclass(frozen=True)
class ManualPrompts:
    """Prompts that people would write to suppress or induce a persona; `choose` returns the best.

    Attributes:
        prompts: The texts.

    Example:
        >>> wb.ManualPrompts(["be honest", "be direct"]).prompts
        ('be honest', 'be direct')
    """

    prompts: tuple[str, ...]

    def __init__(self, prompts: Sequence[str]) -> None:
        if isinstance(prompts, str) or not prompts:
            raise UserError("expected a list of at least one manual prompt")
        object.__setattr__(self, "prompts", tuple(prompts))

    def choose(
        self,
        model: Any,
        selection: Split | Contexts,
        sign: Sign = "suppress",
        slot: Slot = "system",
        name: str = "manual",
    ) -> Prompt:
        """Return the prompt with the largest effect on the selection questions; on ties the earlier one.

        The effect is the mean log-odds of the answers that show the persona, negated for "suppress".

        Args:
            model: A loaded model or its runner.
            selection: Questions by which the prompt is chosen.
            sign: Whether to "suppress" or "induce" the persona.
            slot: The place in the chat where the prompt goes, such as the system message.
            name: Name of the condition in tables.

        Returns:
            The prompt with its rate (fraction of selection questions answered as the persona) and the cost of
            choosing.
        """
        contexts = as_contexts(model, selection, slot)
        with spending(model, contexts) as receipt:
            tried = answer_prompts(model, contexts, self.prompts)
        best = max(range(len(tried)), key=lambda i: (signed(sign) * float(tried[i].log_odds.mean()), -i))
        method = f"best of {len(tried)} on selection"
        return Prompt(
            self.prompts[best], name, "manual", method, selection_rate=tried[best].rate, cost=receipt.cost
        )


def _build(context: BuildContext) -> list[Prompt]:
    if not context.manual_prompts:
        raise UserError(
            f"persona {context.persona.name!r} has no manual prompt to {context.sign}: leave out the condition 'manual'"
        )
    return [
        ManualPrompts(context.manual_prompts).choose(context.model, context.selection_contexts, context.sign)
    ]


register_kind(
    ConditionKind(
        "manual", "written", "written by a person", control_of=("better_than_writing",), is_reference=True
    )
)
register_study_condition(
    StudyCondition(
        "manual", "manual", "the best of the persona's written prompts", _build, is_default=True, order=20
    )
)
