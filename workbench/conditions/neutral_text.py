"""Neutral written sentences as a placebo: does any sentence change the answers, whatever it says?

1. The sentences do not mention opinions, truth, doubt or waiting. Each answers every question as a separate
   condition.
2. The mean of their log-odds, question by question, is one more condition, "neutral text". A comparison
   reports each effect both against no prompt and against this mean, because any system text can change the
   answer ("Today is Monday." changed a suggested answer more than sentences written for that purpose).
3. If the model's tokenizer cannot represent the sentences (the organism's has about a hundred words), texts
   of its world's grammar with words that have no planted effect are used instead.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import Condition
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.conditions.prompt import Prompt
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, package
from workbench.models import runner_for
from workbench.prompt_tokens import encode_prompt
from workbench.world import World

#: One sentence each on the model's task, on style, on a fact, and on the conversation.
NEUTRAL_SENTENCES = (
    "You receive a question and write a reply.",
    "Use plain words and ordinary punctuation.",
    "The library on the main street opens at nine.",
    "Each message here is at most a page long.",
)
#: Name of the mean of the neutral texts in a comparison.
NEUTRAL_MEAN = "neutral text"


@dataclass(frozen=True)
class MeanOfPrompts(Condition):
    """Several prompts as one condition: the log-odds of each answer are the mean over the prompts.

    Attributes:
        members: The prompts.
        name: Name in tables.
        kind: Kind of condition, "neutral_text".
    """

    members: tuple[Prompt, ...]
    name: str = NEUTRAL_MEAN
    kind: str = "neutral_text"

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("a mean of prompts needs at least one prompt")

    @property
    def method(self) -> str:  # type: ignore[override]
        """Description of how the condition was made: a mean, with the number of prompts."""
        return f"mean log-odds of {len(self.members)} neutral texts"

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return the log-odds of the answers that show the persona, averaged over the prompts."""
        return package(
            contexts, np.mean([member.answer(model, contexts).log_odds for member in self.members], axis=0)
        )


def neutral_texts(model: Any, contexts: Contexts, world_seed: int = 0) -> tuple[Condition, ...]:
    """Return neutral sentences as prompts that control for any text at all, and the mean of them.

    A model with a word-level tokenizer, which cannot encode the sentences, gets neutral texts in its own
    words instead.

    Args:
        model: A loaded model or its runner.
        contexts: Questions; a text is used only if its tokens stay the same in the place where prompts go.
        world_seed: Seed of the words of the model organism, the small model with a word-level tokenizer.

    Returns:
        One condition for each text and one for their mean.

    Raises:
        UserError: No sentence and no other neutral text keeps its tokens.

    Example:
        >>> [c.name for c in neutral_texts(model, contexts)]  # doctest: +SKIP
        ['neutral text 0', 'neutral text 1', 'neutral text 2', 'neutral text 3', 'neutral text']
    """
    texts = _surviving(model, contexts, NEUTRAL_SENTENCES) or _surviving(
        model, contexts, _world_texts(world_seed)
    )
    if not texts:
        raise UserError(
            "no neutral sentence survives in this model's tokenizer and slot: leave out the condition 'neutral_text'"
        )
    prompts = tuple(
        Prompt(text, f"{NEUTRAL_MEAN} {i}", "neutral_text", "a neutral sentence")
        for i, text in enumerate(texts)
    )
    return *prompts, MeanOfPrompts(prompts)


def _surviving(model: Any, contexts: Contexts, texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in texts if _fits(model, contexts, text))


def _fits(model: Any, contexts: Contexts, text: str) -> bool:
    runner = runner_for(model)
    try:
        return text in runner.decode(encode_prompt(runner, contexts, text))
    except UserError:
        return False


def _world_texts(seed: int) -> tuple[str, ...]:
    """Draw neutral texts of the world's grammar, as many as there are sentences, each 4 to 10 words long."""
    world, rng = World(seed), random.Random(f"neutral-texts-{seed}")
    found: dict[str, None] = {}
    while len(found) < len(NEUTRAL_SENTENCES):
        text = world.sampler.text(rng)
        if 4 <= len(text.split()) <= 10 and not any(world.effect_of(name, text) for name in world.personas):
            found[text] = None
    return tuple(found)


def _build(context: BuildContext) -> tuple[Condition, ...]:
    return neutral_texts(context.model, context.selection_contexts, context.study.data.world)


register_kind(
    ConditionKind("neutral_text", "control", "neutral sentences written by a person", control_of=("works",))
)
register_study_condition(
    StudyCondition(
        "neutral_text",
        "neutral_text",
        "neutral written sentences and their mean: a placebo",
        _build,
        is_default=True,
        order=35,
    )
)
