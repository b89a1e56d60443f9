"""Few-shot examples as a prompt: answered questions of the train split in the slot (Brown et al. 2020)."""

from __future__ import annotations

from typing import Any

from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import signed
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
from workbench.personas import Item, Sign, Split
from workbench.prompt_tokens import encode_prompt


def few_shot(
    model: Any, train: Split, contexts: Contexts, n: int = 3, sign: Sign = "suppress", seed: int = 0
) -> Prompt:
    """Make a few-shot prompt: questions of the train split, each followed by the answer that is requested.

    The examples come from different groups of related questions as far as possible. With letters the order of
    the two options alternates from example to example, so that the prompt does not favour one letter.

    Args:
        model: A loaded model or its runner.
        train: Split that the examples are drawn from.
        contexts: Questions that the prompt must fit in front of.
        n: Number of examples.
        sign: "induce" shows the answers that show the persona, "suppress" the other ones.
        seed: Seed of the draw.

    Returns:
        The prompt as a condition.

    Raises:
        UserError: The examples and the longest question together exceed the model's context length.

    Example:
        >>> wb.few_shot(model, data.train, contexts, n=1).kind
        'few_shot'
    """
    items = list(train.take(n, seed))
    answers_matching = signed(sign) > 0
    shots = [
        _shot(train, item, contexts.metric, answers_matching, matching_first=i % 2 == 0)
        for i, item in enumerate(items)
    ]
    text = "\n\n".join(shots)
    runner = runner_for(model)
    length = len(encode_prompt(runner, contexts, text)) + max(len(c.ids(())) for c in contexts)
    if length > runner.shape.n_ctx:
        raise UserError(
            f"{len(shots)} examples and the longest question make {length} tokens: this model's context holds {runner.shape.n_ctx}"
        )
    return Found(
        text, "few_shot", f"{len(shots)} examples of {train.name}, seed {seed}", name=f"{len(shots)} examples"
    )


def _shot(train: Split, item: Item, metric: str, answers_matching: bool, matching_first: bool) -> str:
    if metric == "text" or train.persona.letters is None:
        return f"{item.question}\n{item.matching if answers_matching else item.not_matching}"
    form = train.persona.letters
    answer = form.answers(matching_first)[0 if answers_matching else 1]
    return f"{form.ask(item, matching_first)} {form.opening}{answer}"


def _build(context: BuildContext) -> list[Prompt]:
    return [
        few_shot(
            context.model,
            context.splits.train,
            context.selection_contexts,
            sign=context.sign,
            seed=context.seed,
        )
    ]


register_kind(
    ConditionKind("few_shot", "written", "examples in the prompt", control_of=("better_than_writing",))
)
register_study_condition(
    StudyCondition("few_shot", "few_shot", "three answered questions of the train split", _build, order=180)
)
