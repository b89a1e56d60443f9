"""Generate answers in the model's own words, with a prompt in its slot, for judges and for readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.contexts import Slot
from workbench.evaluation.continuation_log_probs import ask
from workbench.models import Runner, TokenLayout, runner_for
from workbench.personas import Item

#: Most answers that are generated at a time.
BATCH = 16


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
    runner = runner_for(model)
    texts = [ask(runner, item.question, prompt, slot) for item in items]
    ids = [runner.encode(text) for text in texts]
    drawn = samples if temperature else 1  # greedy answers of one question are equal
    jobs = [(number, sample) for number in range(len(items)) for sample in range(drawn)]
    said: dict[tuple[int, int], tuple[str, bool]] = {}
    for batch in _equal_lengths(jobs, [len(row) for row in ids]):
        rows = torch.tensor([ids[number] for number, _ in batch])
        seeds = [1_000_003 * seed + 1000 * number + sample for number, sample in batch]
        new = _continued(runner, rows, max_new_tokens, temperature, seeds)
        said |= {job: _cut(runner, row) for job, row in zip(batch, new, strict=True)}
    return [
        OpenAnswer(
            item.id,
            item.group,
            item.question,
            texts[number],
            *said[number, sample % drawn],
            item.matching,
            item.not_matching,
            sample,
        )
        for number, item in enumerate(items)
        for sample in range(samples)
    ]


def _equal_lengths(jobs: Sequence[tuple[int, int]], lengths: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Part (question, sample) pairs into batches whose texts have equal numbers of tokens, so none is padded."""
    by_length: dict[int, list[tuple[int, int]]] = {}
    for job in jobs:
        by_length.setdefault(lengths[job[0]], []).append(job)
    return [same[i : i + BATCH] for same in by_length.values() for i in range(0, len(same), BATCH)]


def _continued(
    runner: Runner,
    ids: Int[Tensor, "batch pos"],
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
) -> list[list[int]]:
    """Continue texts of equal length, each sampled with its own seed; the new token ids only."""
    nowhere = torch.zeros(len(ids), dtype=torch.long)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with runner.placed(TokenLayout(nowhere, nowhere, torch.full_like(nowhere, ids.shape[1] - 1))):
        return runner.generate(ids, max_new_tokens, temperature, generators, ends=runner.reply_ends).tolist()


def _cut(runner: Runner, new: list[int]) -> tuple[str, bool]:
    """Return the text up to the token that ends the reply, and whether there is one."""
    stop = next((i for i, token in enumerate(new) if token in runner.reply_ends), None)
    return runner.tokenizer.decode(new[:stop], skip_special_tokens=True).strip(), stop is not None
