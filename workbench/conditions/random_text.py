"""Random fluent text, sampled from the model in the prompt's slot: does any fluent text have the effect?

It is the control of fluent prompts: same slot, same length, the model's own distribution (temperature 1), and
no objective.
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

_TRIES = 40
_ROWS = 16


@dataclass(frozen=True)
class RandomText:
    """Fluent random prompts sampled from the model, one per seed: a control for prompts found by a search.

    Attributes:
        length: Length of each prompt in tokens.
        seeds: Seeds, one for each prompt.
        temperature: Sampling temperature.

    Example:
        >>> len(wb.RandomText(length=4, seeds=(0,)).draw(model, contexts))
        1
    """

    length: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.length < 1 or not self.seeds or self.temperature <= 0:
            raise UserError(
                f"sampled prompts need a length of at least 1, a seed and a temperature above 0, found {self}"
            )

    def draw(self, model: Any, contexts: Contexts) -> tuple[Prompt, ...]:
        """Sample one prompt per seed, as a continuation of the text before the prompt's place in the chat.

        Samples whose tokens change when they are decoded, put into the chat and encoded again are discarded.

        Args:
            model: A loaded model or its runner.
            contexts: Questions that the prompts must fit.

        Returns:
            The prompts, numbered from 0 in their names.

        Raises:
            UserError: No sample of one of the seeds keeps its tokens.
        """
        return tuple(self._draw(model, contexts, seed, number) for number, seed in enumerate(self.seeds))

    def _draw(self, model: Any, contexts: Contexts, seed: int, number: int) -> Prompt:
        runner = runner_for(model)
        banned = ~allowed_ids(runner)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.tensor([contexts[0].prefix_ids]).expand(_ROWS, -1)
        for _ in range(_TRIES):
            for ids in runner.generate(rows, self.length, self.temperature, generator, banned).tolist():
                if survives(runner, contexts, ids):
                    method = f"{self.length} tokens sampled from the model, seed {seed}"
                    return Found(
                        runner.decode(ids).strip(), "random_text", method, name=f"random text {number}"
                    )
        raise UserError(
            f"no sampled prompt of {self.length} tokens survives decode -> encode in these contexts ({_TRIES * _ROWS} tries)"
        )


def _build(context: BuildContext) -> tuple[Prompt, ...]:
    return RandomText(context.prompt_length, context.random_seeds).draw(
        context.model, context.selection_contexts
    )


register_kind(ConditionKind("random_text", "control", "random fluent text", control_of=("works",)))
register_study_condition(
    StudyCondition(
        "random_text",
        "random_text",
        "text sampled from the model, of the found prompts' length",
        _build,
        is_default=True,
        order=40,
    )
)
