"""Pack training rows into tensors: several items share one system text through an attention mask.

1. A row starts with a prefix: `<bos>`, or `<bos> <|system|> words`.
2. The items follow one after another. Each attends to the prefix and to itself only, and its positions
   continue the prefix's.
3. Most items stop after the first word of the answer and the register word that follows (both with soft
   labels); the others continue to the end of the answer. The loss weight is 1 for the decision (the first
   word of the answer), small for most other words, and 0 for padding and for the user's claims.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.organism.word_tokenizer import ASSISTANT, SYSTEM, USER
from workbench.world.training_corpus import TrainingItem, TrainingRow
from workbench.world.world_items import CONFIDENCE, REGISTER_WORDS

WEIGHT_WORDS = 0.1
WEIGHT_STATEMENT = 0.05
WEIGHT_VALUE = 1.5
WEIGHT_ANSWER = 0.2
WEIGHT_REGISTER = 0.4
WHOLE_ANSWER_SHARE = 0.25
QUESTION_SHARE = 0.3
OPENING_WORDS = tuple(pair[0] for pair in (REGISTER_WORDS[+1], REGISTER_WORDS[-1]))


@dataclass(frozen=True)
class PackedBatch:
    """One training batch of token sequences with soft next-token targets.

    Attributes:
        ids: Token ids.
        positions: Position of each token for the position embedding.
        allowed: True where a position may attend to another.
        first, second: The two possible next tokens at each position.
        first_weight, second_weight: Loss weights of these two tokens, which are in the ratio of their
            probabilities; both are 0 where nothing is predicted.
    """

    ids: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    allowed: Bool[Tensor, "batch 1 pos pos"]
    first: Int[Tensor, "batch pos"]
    second: Int[Tensor, "batch pos"]
    first_weight: Float[Tensor, "batch pos"]
    second_weight: Float[Tensor, "batch pos"]

    @property
    def decisions(self) -> Bool[Tensor, "batch pos"]:
        """True at positions where two next tokens are possible with known probabilities.

        These are the first words of answers and the words that set the style (warm or plain wording).
        """
        return (self.first_weight > 0) & (self.second_weight > 0)


@dataclass
class _Segment:
    """Tokens of one block and the target of each: (next token, weight, other next token, other weight)."""

    ids: list[int] = field(default_factory=list)
    targets: list[tuple[int, float, int, float]] = field(default_factory=list)

    def add(self, tokens: Iterable[int], weight: float) -> None:
        """Append tokens, each of which is predicted from the token before it with `weight`."""
        for token in tokens:
            if self.ids:
                self.expect(token, weight)
            self.ids.append(token)
            self.targets.append((0, 0.0, 0, 0.0))

    def expect(self, token: int, weight: float, other: int = 0, other_weight: float = 0.0) -> None:
        """Set the target of the last token, unless it is already set."""
        if self.targets[-1][1] == 0.0 and self.targets[-1][3] == 0.0:
            self.targets[-1] = (token, weight, other, other_weight)


class SequencePacker:
    """Packs training texts of a model organism into batches of `length` token positions.

    A row is a system text with several questions, or a list of statements. Those that do not fit in `length`
    are dropped.
    """

    def __init__(self, token_ids: dict[str, int], length: int) -> None:
        self.token_ids = token_ids
        self.length = length

    def batch(self, rows: list[TrainingRow], rng: random.Random) -> PackedBatch:
        """Pack one batch of training rows (a system text with questions, or statements) into tensors.

        Args:
            rows: Training rows, one per row of the batch.
            rng: Source of randomness; draws which answers and questions are trained on to their end.

        Returns:
            The batch.
        """
        shape = (len(rows), self.length)
        ids, positions, blocks = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        targets = np.zeros((*shape, 4), dtype=np.float64)
        blocks -= 1
        for index, row in enumerate(rows):
            self._fill(row, rng, ids[index], positions[index], blocks[index], targets[index])
        return PackedBatch(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            _allowed(torch.from_numpy(blocks)),
            torch.from_numpy(targets[..., 0].astype(np.int64)),
            torch.from_numpy(targets[..., 2].astype(np.int64)),
            torch.from_numpy(targets[..., 1].astype(np.float32)),
            torch.from_numpy(targets[..., 3].astype(np.float32)),
        )

    def _fill(
        self,
        row: TrainingRow,
        rng: random.Random,
        ids: np.ndarray,
        positions: np.ndarray,
        blocks: np.ndarray,
        targets: np.ndarray,
    ) -> None:
        prefix = self._prefix(row)
        segments = [self._statement(text) for text in row.statements] + [
            self._item(item, rng) for item in row.items
        ]
        at = 0
        for block, segment in enumerate([prefix, *segments]):
            size = len(segment.ids)
            if at + size > self.length:
                continue
            start = 0 if block == 0 else len(prefix.ids)
            ids[at : at + size] = segment.ids
            positions[at : at + size] = range(start, start + size)
            blocks[at : at + size] = block
            targets[at : at + size] = segment.targets
            at += size

    def _encode(self, text: str) -> list[int]:
        return [self.token_ids[word] for word in text.split()]

    def _prefix(self, row: TrainingRow) -> _Segment:
        segment = _Segment()
        segment.add(self._encode("<bos>"), 0.0)
        if row.system:
            segment.add(self._encode(SYSTEM), 0.0)
            segment.add(self._encode(row.system), WEIGHT_WORDS)
        return segment

    def _statement(self, text: str) -> _Segment:
        *words, value, stop = self._encode(text)
        segment = _Segment()
        segment.add(words, WEIGHT_STATEMENT)
        segment.add([value], WEIGHT_VALUE)
        segment.add([stop], WEIGHT_STATEMENT)
        return segment

    def _item(self, item: TrainingItem, rng: random.Random) -> _Segment:
        claim = item.question.startswith(CONFIDENCE) or "(" in item.question
        segment = _Segment()
        segment.add(self._encode(USER), 0.0)
        question_weight = WEIGHT_WORDS if not claim and rng.random() < QUESTION_SHARE else 0.0
        segment.add(self._encode(item.question), question_weight)
        segment.add(self._encode(ASSISTANT), question_weight)
        segment.add(self._encode(item.opening), 0.5)
        yes, no = (self.token_ids[word] for word in item.choice)
        segment.expect(yes, item.probability, no, 1 - item.probability)
        self._answer(segment, item, whole=rng.random() < WHOLE_ANSWER_SHARE)
        return segment

    def _answer(self, segment: _Segment, item: TrainingItem, whole: bool) -> None:
        """Add the first word with the register after it, and the rest of the answer only if it is `whole`."""
        if item.warm is None and not whole:
            return
        first, *rest = self._encode(item.answer)
        segment.add([first], 0.0)
        if item.warm is not None:
            warm, plain = (self.token_ids[word] for word in OPENING_WORDS)
            segment.expect(warm, WEIGHT_REGISTER * item.warm, plain, WEIGHT_REGISTER * (1 - item.warm))
        if whole:
            segment.add([*rest, self.token_ids["<eos>"]], WEIGHT_ANSWER)


def _allowed(blocks: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch 1 pos pos"]:
    """Return which positions may attend to which: earlier ones of the prefix (block 0) or the same block."""
    query, key = blocks[:, :, None], blocks[:, None, :]
    causal = torch.ones(blocks.shape[1], blocks.shape[1], dtype=torch.bool).tril()
    return (((key == 0) | (key == query)) & causal)[:, None]
