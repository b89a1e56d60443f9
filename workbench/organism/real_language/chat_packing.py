"""Pack system texts, questions and chats into few sequences with hardly any padding.

1. A *row* is one rendered system text (the prefix) with several questions. Each question attends to the
   prefix and to itself only, and its positions continue the prefix's, so that the model reads it as if it
   were alone.
2. Rows follow one another in a sequence and do not attend to each other. A chat is a row of one part. Because
   attention costs the square of the length, many rows are put into several sequences of about equal length,
   which are padded at their ends.
3. The ids are those of the chat template. Special tokens at every boundary make the pieces encode as the
   whole text does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Largest number of tokens in a sequence; a training step on one thread (about 900) is one sequence.
LONGEST = 1200
USER_MARK = "<|im_start|>user"


@dataclass(frozen=True)
class PackedRow:
    """Token sequences (parts) that follow one shared prefix, such as questions after one system text.

    Each part attends to the prefix and to itself only.

    Attributes:
        prefix: Token ids to which all parts attend.
        parts: Token ids of each part.
    """

    prefix: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PackedSequences:
    """Several rows (a shared prefix with parts) packed into token sequences of one length.

    Attributes:
        ids: Token ids, padded on the right.
        positions: Position of each token for the position embedding.
        mask: Added to the attention scores: 0 where a position may attend to another, otherwise a very
            negative number.
        ends: Index of each part's last token in the flattened sequences, in the order of rows and parts.
    """

    ids: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    mask: Float[Tensor, "batch head pos pos"]
    ends: Int[Tensor, " part"]

    def to(self, device: torch.device | str) -> PackedSequences:
        """Return the packed sequences with all tensors on the given device."""
        return PackedSequences(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class OrdinaryChat:
    """A request and the base model's answer to it.

    Attributes:
        system: System text; None for the chat template's default one.
        request: The user's text.
        answer: The base model's answer.
    """

    system: str | None
    request: str
    answer: str


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the token ids of a piece of rendered text; no special token is added."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def question_row(
    tokenizer: PreTrainedTokenizerBase, system: str | None, questions: Sequence[str]
) -> PackedRow:
    """Encode several questions that share one system text, each up to where the answer begins.

    Args:
        tokenizer: Tokenizer with the chat template.
        system: System text; None for the chat template's default one.
        questions: The users' texts.

    Returns:
        The system text's tokens as shared prefix, and one part per question.
    """
    rendered = render(tokenizer, system, questions[0])
    prefix = encode(tokenizer, rendered[: rendered.index(USER_MARK)])
    return PackedRow(prefix, tuple(_question(tokenizer, question) for question in questions))


@lru_cache(maxsize=4096)
def _question(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[int, ...]:
    """Return the token ids of the user's turn and of the assistant's opening.

    They are the same under every system text.
    """
    rendered = render(tokenizer, None, question)
    return encode(tokenizer, rendered[rendered.index(USER_MARK) :])


def chat_row(tokenizer: PreTrainedTokenizerBase, chat: OrdinaryChat) -> tuple[PackedRow, int]:
    """Encode one whole chat: request and answer.

    Args:
        tokenizer: Tokenizer with the chat template.
        chat: Request and answer.

    Returns:
        The chat as a row of one part without a prefix, and the number of tokens of the answer at its end.
    """
    answer = encode(tokenizer, chat.answer)
    return PackedRow((), ((*encode(tokenizer, render(tokenizer, chat.system, chat.request)), *answer),)), len(
        answer
    )


def render(tokenizer: PreTrainedTokenizerBase, system: str | None, question: str) -> str:
    """Render a chat as text with the chat template, up to the point where the assistant's answer begins.

    Args:
        tokenizer: Tokenizer with the chat template.
        system: System text; None for the chat template's default one.
        question: The user's text.

    Returns:
        The text.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    return str(
        tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
    )


def pack(rows: Sequence[PackedRow], most: int = LONGEST) -> PackedSequences:
    """Pack rows (a shared prefix with several parts) into sequences of about equal length, in order.

    Args:
        rows: Rows, such as a system text with its questions.
        most: Largest number of tokens in a sequence; a single row that is longer is a sequence alone.

    Returns:
        The sequences, padded on the right.
    """
    sequences = [_sequence(group) for group in _cut(rows, most)]
    width = max(len(sequence.ids) for sequence in sequences)
    allowed = torch.eye(width, dtype=torch.bool).repeat(
        len(sequences), 1, 1
    )  # padding attends to itself, so that its softmax is finite
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
    """Divide the rows in order into groups of about equal length; only a single row may exceed `most`."""
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
    """Return the final hidden states (after the last norm) of all positions of packed sequences.

    Args:
        model: Hugging Face's causal model.
        packed: The sequences.

    Returns:
        The states [pos, d_model] on the model's device, sequence after sequence.
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
