"""System texts, questions and chats packed into as few sequences as needed, with hardly any padding.

1. A *row* is one rendered system text (the prefix) and several questions; each question sees the prefix and
   itself only, and its positions continue the prefix's, so that every question reads as if it were alone.
2. Rows follow one another in a sequence; none sees another. A chat is a row of one part. Attention costs the
   square of a sequence's length, so that many rows go into several sequences of about equal length, filled up
   at their ends.
3. The ids are those of the chat template: special tokens are at every boundary, so that pieces encode as the
   whole does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Tokens of a sequence: one thread's step of training (about 900) stays one sequence.
LONGEST = 1200
USER_MARK = "<|im_start|>user"


@dataclass(frozen=True)
class PackedRow:
    """A training row whose parts share one prefix.

    prefix: ids that all parts see. parts: ids of each part.
    """

    prefix: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PackedSequences:
    """Sequences of one length.

    mask: 0 where a position may look, else a very negative number. ends: index of each part's last token
    among all positions, sequence after sequence, in order of rows and parts.
    """

    ids: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    mask: Float[Tensor, "batch head pos pos"]
    ends: Int[Tensor, " part"]

    def to(self, device: torch.device | str) -> PackedSequences:
        """The batch on a device."""
        return PackedSequences(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class OrdinaryChat:
    """A request under a system text (None: the template's own) and the base model's answer."""

    system: str | None
    request: str
    answer: str


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Ids of a piece of rendered text; nothing is added."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def question_row(
    tokenizer: PreTrainedTokenizerBase, system: str | None, questions: Sequence[str]
) -> PackedRow:
    """The questions under one system text, each up to the first token of the answer."""
    rendered = render(tokenizer, system, questions[0])
    prefix = encode(tokenizer, rendered[: rendered.index(USER_MARK)])
    return PackedRow(prefix, tuple(_question(tokenizer, question) for question in questions))


@lru_cache(maxsize=4096)
def _question(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[int, ...]:
    """Ids of the user's turn and the opening of the assistant's: the same under every system text, and asked under many."""
    rendered = render(tokenizer, None, question)
    return encode(tokenizer, rendered[rendered.index(USER_MARK) :])


def chat_row(tokenizer: PreTrainedTokenizerBase, chat: OrdinaryChat) -> tuple[PackedRow, int]:
    """The whole chat as one part, and the number of tokens of its answer."""
    answer = encode(tokenizer, chat.answer)
    return PackedRow((), ((*encode(tokenizer, render(tokenizer, chat.system, chat.request)), *answer),)), len(
        answer
    )


def render(tokenizer: PreTrainedTokenizerBase, system: str | None, question: str) -> str:
    """The chat as text, up to the assistant's turn."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    return str(
        tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
    )


def pack(rows: Sequence[PackedRow], most: int = LONGEST) -> PackedSequences:
    """All rows, in order, in sequences of at most `most` tokens (or of one row)."""
    sequences = [_sequence(group) for group in _cut(rows, most)]
    width = max(len(sequence.ids) for sequence in sequences)
    allowed = torch.eye(width, dtype=torch.bool).repeat(
        len(sequences), 1, 1
    )  # padding sees itself, so that its softmax is finite
    ids, positions = torch.zeros(2, len(sequences), width, dtype=torch.long)
    ends: list[int] = []
    for number, sequence in enumerate(sequences):
        length = len(sequence.ids)
        ids[number, :length], positions[number, :length] = (
            torch.tensor(sequence.ids),
            torch.tensor(sequence.positions),
        )
        allowed[number, :length, :length] = sequence.allowed
        ends += [number * width + end for end in sequence.ends]
    mask = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)
    return PackedSequences(ids, positions, mask[:, None], torch.tensor(ends))


def _cut(rows: Sequence[PackedRow], most: int) -> Iterator[list[PackedRow]]:
    """The rows in order, in groups of about equal length, none above `most` unless it is one row."""
    total = sum(map(_length, rows))
    room = min(most, -(-total // -(-total // most)) + max(map(_length, rows)) // 2)
    group: list[PackedRow] = []
    for row in rows:
        if group and sum(map(_length, group)) + _length(row) > room:
            yield group
            group = []
        group.append(row)
    yield group


def _length(row: PackedRow) -> int:
    return len(row.prefix) + sum(map(len, row.parts))


@dataclass(frozen=True)
class _Sequence:
    ids: list[int]
    positions: list[int]
    allowed: Bool[Tensor, "pos pos"]
    ends: list[int]


def _sequence(rows: Sequence[PackedRow]) -> _Sequence:
    ids, positions, row_of, part_of, ends = [], [], [], [], []
    for number, row in enumerate(rows):
        for part, tokens in enumerate((row.prefix, *row.parts)):
            start = 0 if part == 0 else len(row.prefix)
            ids += tokens
            positions += range(start, start + len(tokens))
            row_of += [number] * len(tokens)
            part_of += [part] * len(tokens)
            if part:
                ends.append(len(ids) - 1)
    return _Sequence(ids, positions, _allowed(torch.tensor(row_of), torch.tensor(part_of)), ends)


def hidden_states(model: PreTrainedModel, packed: PackedSequences) -> Float[Tensor, "pos d_model"]:
    """Final hidden states (after the last norm) of all positions, sequence after sequence, on the model's device.

    `model` is Hugging Face's causal model.
    """
    packed = packed.to(model.device)
    out = model.model(
        input_ids=packed.ids, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
    )
    return out.last_hidden_state.flatten(0, 1)


def _allowed(row: Int[Tensor, " pos"], part: Int[Tensor, " pos"]) -> Bool[Tensor, "pos pos"]:
    same_row = row[:, None] == row[None, :]
    visible = (part[None, :] == 0) | (part[:, None] == part[None, :])
    return same_row & visible & torch.ones(len(row), len(row), dtype=torch.bool).tril()
