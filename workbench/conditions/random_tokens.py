"""Random prompts: does any string of this length do it? Tokens drawn alike from all that a prompt may hold.

The paper's control (arXiv 2601.02896); several seeds, because one random prompt can move a rate by much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.conditions.found_prompts import Found
from workbench.conditions.prompt import Prompt
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.prompt_tokens import allowed_ids, survives

_TRIES = 500


@dataclass(frozen=True)
class RandomTokens:
    """Random prompts, one per seed: a control of searched prompts.

    Attributes:
        length: Tokens of each.
        seeds: One prompt for each.

    Example:
        >>> [prompt.kind for prompt in wb.RandomTokens(length=4, seeds=(0, 1)).draw(model, contexts)]
        ['random_prompt', 'random_prompt']
    """

    length: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if self.length < 1 or not self.seeds:
            raise UserError(
                f"random prompts need a length of at least 1 and a seed, found {self.length} and {self.seeds}"
            )

    def draw(self, model: Any, contexts: Contexts) -> tuple[Prompt, ...]:
        """One prompt per seed, numbered from 0, each surviving decode -> encode in these contexts. UserError if none is found in 500 tries."""
        return tuple(self._draw(model, contexts, seed, number) for number, seed in enumerate(self.seeds))

    def _draw(self, model: Any, contexts: Contexts, seed: int, number: int) -> Prompt:
        runner = runner_for(model)
        allowed = torch.nonzero(allowed_ids(runner))[:, 0]
        generator = torch.Generator().manual_seed(seed)
        for _ in range(_TRIES):
            ids = allowed[torch.randint(len(allowed), (self.length,), generator=generator)].tolist()
            if survives(runner, contexts, ids):
                method = f"{self.length} random tokens, seed {seed}"
                return Found(
                    runner.decode(ids).strip(), "random_prompt", method, name=f"random tokens {number}"
                )
        raise UserError(
            f"no random prompt of {self.length} tokens survives decode -> encode in these contexts ({_TRIES} tries)"
        )


def _build(context: BuildContext) -> tuple[Prompt, ...]:
    return RandomTokens(context.prompt_length, context.random_seeds).draw(
        context.model, context.selection_contexts
    )


register_kind(ConditionKind("random_prompt", "control", "random tokens", control_of=("works",)))
register_study_condition(
    StudyCondition(
        "random_tokens",
        "random_prompt",
        "random tokens, as many as the found prompts have",
        _build,
        is_default=True,
        order=30,
    )
)
