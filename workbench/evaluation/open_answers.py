"""Answers in the model's own words, with the prompt in its slot, for judges and for people."""

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

    question: what the user said. rendered: what the model saw. text: its answer, without special tokens.
    finished: it ended by itself within the limit. matching, not_matching: the item's two options, for a
    judge. sample: number of the sample.
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
    """Let the model answer each item's question in its own words.

    Each answer is drawn with a seed of its own, so that it does not depend on what else is in the list. Edits
    that are active act (also at the decision token of the question).

    Args:
        model: A loaded model or its runner.
        items: Items whose questions are answered.
        prompt: Text in the slot; None: the bare question.
        slot: Where the prompt is put.
        max_new_tokens: Length limit of an answer.
        temperature: 0: greedy.
        samples: Answers per item.
        seed: Of sampling.

    Returns:
        `samples` answers per item, in order.

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
