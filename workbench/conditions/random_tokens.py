"""Random tokens as a prompt: does any string of this length have the effect?

The tokens are drawn uniformly from those that a prompt may hold. This is the paper's control (arXiv
2601.02896). Several seeds are used, because one random prompt alone can change a rate by a large amount.
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
    """Prompts of random tokens, one per seed: a control for prompts found by a search.

    Attributes:
        length: Length of each prompt in tokens.
        seeds: Seeds, one for each prompt.

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
        """Draw one prompt per seed whose tokens stay the same when decoded and encoded in the chat.

        Args:
            model: A loaded model or its runner.
            contexts: Questions that the prompts must fit.

        Returns:
            The prompts, numbered from 0 in their names.

        Raises:
            UserError: None of 500 draws of one of the seeds keeps its tokens.
        """
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
