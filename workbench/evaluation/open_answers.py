"""Generate answers in the model's own words, with a prompt in its slot, for judges and for readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.contexts import Slot
from workbench.evaluation.continuation_log_probs import ask
from workbench.models import TokenLayout, runner_for
from workbench.personas import Item


@dataclass(frozen=True)
class OpenAnswer:
    """An answer in the model's own words.

    Attributes:
        item_id: Id of the question.
        group: Question group, the unit of clustering in statistics.
        question: The user's message.
        rendered: The whole text before the answer, in the chat template.
        text: The answer, without special tokens.
        finished: Whether the model ended the answer within the token limit.
        matching: The question's option that shows the persona, for a judge.
        not_matching: The question's other option.
        sample: Number of the sample of this question.
    """

    item_id: str
    group: str
    question: str
    rendered: str
    text: str
    finished: bool
    matching: str
    not_matching: str
    sample: int = 0


def open_answers(
    model: Any,
    items: Sequence[Item],
    prompt: str | None = None,
    slot: Slot = "system",
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
) -> list[OpenAnswer]:
    """Let the model answer each question in its own words.

    Each answer is sampled with a separate seed, made of `seed`, the position in the list and the number of
    the sample. Edits of the model that are active (steering, for example) are applied, also at the decision
    token, the last token before the answer.

    Args:
        model: A loaded model or its runner.
        items: Items whose questions are answered.
        prompt: Text of the prompt. None: no prompt.
        slot: Place in the chat where the prompt goes.
        max_new_tokens: Most tokens of an answer.
        temperature: Sampling temperature; 0 is greedy.
        samples: Number of answers per question.
        seed: Seed of the sampling.

    Returns:
        `samples` answers per question, in the order of the questions.

    Example:
        >>> [len(a.text) > 0 for a in wb.open_answers(model, data.test.items[:1], max_new_tokens=4)]
        [True]
    """
    runner, found = runner_for(model), []
    end = runner.reply_ends
    for number, item in enumerate(items):
        text = ask(runner, item.question, prompt, slot)
        ids = torch.tensor([runner.encode(text)])
        zero, last = torch.zeros(1, dtype=torch.long), torch.tensor([ids.shape[1] - 1])
        for sample in range(samples):
            generator = torch.Generator().manual_seed(1_000_003 * seed + 1000 * number + sample)
            with runner.placed(TokenLayout(zero, zero, last)):
                new = runner.generate(ids, max_new_tokens, temperature, generator, ends=end)[0].tolist()
            stop = next((i for i, token in enumerate(new) if token in end), None)
            said = runner.tokenizer.decode(new[:stop], skip_special_tokens=True).strip()
            found.append(
                OpenAnswer(
                    item.id,
                    item.group,
                    item.question,
                    text,
                    said,
                    stop is not None,
                    item.matching,
                    item.not_matching,
                    sample,
                )
            )
    return found
