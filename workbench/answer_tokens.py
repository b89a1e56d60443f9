"""Score two whole answers after a question: which token sequences must be run, and how the score is read.

1. An answer's score is the sum of its tokens' log-probabilities, each given all tokens to its left (teacher
   forcing), times a weight that `Normalization` defines. The log-odds are the score of the matching answer
   (the one that shows the persona) minus the score of the other answer.
2. A token's log-probability is its logit minus the log-normalizer at its position. At the first token that
   differs, one position predicts both tokens, so with equal weights the normalizers cancel. For one-token
   answers the log-odds are therefore the difference of two logits.
3. Tokens that both answers share are run once. Two sequences (*branches*) are needed if both answers continue
   after the first token that differs, otherwise one.
4. Every branch gives a part of the score, multiplied by the number of branches, so that the mean over
   branches is the score. Code that averages over contexts averages over branches instead
   (`Contexts.branched`), and searches, gradients and patches need no code for answers of several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import UserError
from workbench.models import Runner, pad_right

#: Factors of the (matching, other) answer's score: log-odds, or the score of one answer alone.
LOG_ODDS, MATCHING, OTHER = (1.0, -1.0), (1.0, 0.0), (0.0, 1.0)


@dataclass(frozen=True)
class AnswerBranch:
    """A token sequence that the model runs to score two answers to a question.

    One answer shows the persona (the *matching* answer), the other does not.

    Attributes:
        tail: Ids of the tokens that are run after the decision token (the last token before the answer).
        reads: One entry per answer token whose log-probability is used: (position that predicts it, counted
            from the decision token; its id; its weight in the matching answer's score; its weight in the
            other's).
    """

    tail: tuple[int, ...] = ()
    reads: tuple[tuple[int, int, float, float], ...] = ()


def answer_branches(
    answers: tuple[Sequence[int], Sequence[int]], weights: tuple[float, float]
) -> tuple[AnswerBranch, ...]:
    """Return the one or two token sequences from which two answers are scored.

    Args:
        answers: Token ids of the matching answer (the one that shows the persona) and of the other answer.
            Neither may be a prefix of the other.
        weights: Factor of each token's log-probability in its answer's score: one factor for the matching
            answer, one for the other.

    Returns:
        One sequence if at least one answer ends at the first token in which the answers differ, else two.
    """
    (a, b), (mine, other) = answers, weights
    part = next(k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    shared = [(k, token, mine, other) for k, token in enumerate(a[:part])]
    fork = [(part, a[part], mine, 0.0), (part, b[part], 0.0, other)]
    rest_a = [(k, a[k], mine, 0.0) for k in range(part + 1, len(a))]
    rest_b = [(k, b[k], 0.0, other) for k in range(part + 1, len(b))]
    if not rest_a or not rest_b:
        longer = a if rest_a else b
        return (AnswerBranch(tuple(longer[:-1]), (*shared, *fork, *rest_a, *rest_b)),)
    return AnswerBranch(tuple(a[:-1]), (*shared, *fork, *rest_a)), AnswerBranch(tuple(b[:-1]), tuple(rest_b))


class HasAnswers(Protocol):
    """Protocol of a question with two encoded answers, from which an `AnswerTable` computes scores."""

    @property
    def answers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the matching answer (the one that shows the persona) and of the other answer."""
        ...

    @property
    def one_token(self) -> bool:
        """Whether the log-odds are simply the difference of two logits.

        This holds if both answers are one token long and their scores are not normalised (weight 1, offset
        0).
        """
        ...

    @property
    def reads(self) -> tuple[tuple[int, int, float, float], ...]:
        """The answer tokens whose log-probabilities are summed to the scores of the two answers.

        Each entry is (position that predicts the token, counted from the decision token, which is the last
        token before the answer; token id; its weight in the score of the matching answer, which shows the
        persona; its weight in the score of the other answer).
        """
        ...

    @property
    def offsets(self) -> tuple[float, float]:
        """Two numbers in nats, one added to each answer's score; (0, 0) without a normalization.

        With the normalization `pmi` they are minus the answers' log-probabilities without the question.
        """
        ...

    @property
    def n_branches(self) -> int:
        """Number of token sequences needed to score both answers: 1 or 2."""
        ...


class AnswerTable:
    """Token ids and weights of the two answers of many contexts, as padded tensors with one row per context.

    A context is a question in the chat template. If its answers need two token sequences (branches), give
    each branch as one context (`Contexts.branched`).

    Attributes:
        one_token: Whether every score is the difference of two logits at the decision token (the last token
            before the answer). The padded tensors are then not built.
        first: Ids of the first token of both answers, [context, 2].
        n_branches: Largest number of branches of a context, 1 or 2.
    """

    def __init__(self, contexts: Sequence[HasAnswers], device: torch.device | str) -> None:
        self.device = device
        self.one_token = all(c.one_token for c in contexts)
        self.n_branches = max(c.n_branches for c in contexts)
        self.first = torch.tensor([[c.answers[0][0], c.answers[1][0]] for c in contexts], device=device)
        if self.one_token:
            return
        rows = [c.reads for c in contexts]
        self.place, self.token, self.weight = _padded(rows)
        self.normalizer_place, _, self.normalizer_weight = _padded([_by_place(reads) for reads in rows])
        self.offset = torch.tensor([c.offsets for c in contexts])

    def scores(
        self,
        runner: Runner,
        stream: Float[Tensor, "row pos d_model"],
        decision: Int[Tensor, " row"],
        members: Sequence[int] | Int[Tensor, " row"],
        sides: tuple[float, float] = LOG_ODDS,
    ) -> Float[Tensor, " row"]:
        """Compute the scores of answers from residual streams: float32, in nats, differentiable.

        One of a question's two answers shows the persona (the *matching* answer).

        Args:
            runner: The model's runner, whose unembedding gives the logits.
            stream: Residual stream after the last block.
            decision: Position of the decision token in each row (the last token before the answer).
            members: Index of each row's context in this table.
            sides: Factors with which the scores of the matching and of the other answer are added: (1, -1)
                gives the log-odds, (1, 0) the score of the matching answer, (0, 1) that of the other.

        Returns:
            One score per row, with the normalization for answer length that was chosen for the contexts.
        """
        members, sign = torch.as_tensor(members).cpu(), torch.tensor(sides)
        tokens = _chosen(self.weight[members] @ sign)
        places = _chosen(self.normalizer_weight[members] @ sign)
        picked = stream[_at(stream, decision, tokens, self.place[members])]
        logits = runner.logits_of(
            picked, self.token[members][tokens.row, tokens.column, None].to(stream.device)
        )[:, 0]
        total = tokens.summed(logits, len(members))
        if len(places.row):
            normalizers = runner.log_normalizer(
                stream[_at(stream, decision, places, self.normalizer_place[members])]
            )
            total = total - places.summed(normalizers, len(members))
        return total + (self.offset[members] @ sign).to(stream.device)


@dataclass(frozen=True)
class _Chosen:
    """The nonzero entries of a padded table of weights: row, column and weight of each."""

    row: Int[Tensor, " entry"]
    column: Int[Tensor, " entry"]
    weight: Float[Tensor, " entry"]

    def summed(self, values: Float[Tensor, " entry"], rows: int) -> Float[Tensor, " row"]:
        """Sum each row's weighted entries; a padded sum, so that repeated runs give equal bits."""
        width = int(self.column.max()) + 1 if len(self.column) else 1
        table = values.new_zeros(rows, width)
        where = (self.row.to(values.device), self.column.to(values.device))
        return table.index_put(where, values * self.weight.to(values.device)).sum(1)


def _chosen(weight: Float[Tensor, "row column"]) -> _Chosen:
    row, column = weight.nonzero(as_tuple=True)
    return _Chosen(row, column, weight[row, column])


def _at(
    stream: Tensor, decision: Tensor, chosen: _Chosen, place: Int[Tensor, "row column"]
) -> tuple[Tensor, Tensor]:
    """Return the index (row, position) of the residuals that predict the chosen entries.

    If a run returned one position per row, that position is the decision token.
    """
    row = chosen.row.to(stream.device)
    if stream.shape[1] == 1:
        return row, torch.zeros_like(row)
    return row, decision.to(stream.device)[row] + place[chosen.row, chosen.column].to(stream.device)


def _by_place(reads: Sequence[tuple[int, int, float, float]]) -> list[tuple[int, int, float, float]]:
    """Add up the weights of all tokens that are predicted at the same position."""
    summed: dict[int, tuple[float, float]] = {}
    for place, _, mine, other in reads:
        before = summed.get(place, (0.0, 0.0))
        summed[place] = (before[0] + mine, before[1] + other)
    return [(place, 0, *weights) for place, weights in summed.items()]


def _padded(rows: Sequence[Sequence[tuple[int, int, float, float]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad rows of unequal length to tensors of positions, tokens and weights; padding has weight 0."""
    width = max(1, max(map(len, rows)))
    filled = [[*row, *([(0, 0, 0.0, 0.0)] * (width - len(row)))] for row in rows]
    place, token = (torch.tensor([[entry[k] for entry in row] for row in filled]) for k in (0, 1))
    return place, token, torch.tensor([[entry[2:] for entry in row] for row in filled])


@torch.no_grad()
def answer_log_probs(
    runner: Runner, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], batch_tokens: int = 8192
) -> list[float]:
    """Compute the log-probability of each continuation after its context, with plain forward passes.

    Args:
        runner: The model's runner.
        rows: Pairs of token ids: a context and its continuation.
        batch_tokens: Most tokens in one batch.

    Returns:
        For each pair, the sum of the log-probabilities of the continuation's tokens, in nats.
    """
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    size = (
        max(1, runner.at_most(batch_tokens) // max(len(left) + len(right) for left, right in rows))
        if rows
        else 1
    )
    for batch in (order[k : k + size] for k in range(0, len(order), size)):
        ids = pad_right([(*rows[i][0], *rows[i][1][:-1]) for i in batch]).to(runner.device)
        resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        for row, i in enumerate(batch):
            left, right = rows[i]
            states = resid[row, len(left) - 1 : len(left) - 1 + len(right)]
            found[i] = float(
                runner.log_probs_of(states, torch.tensor(right, device=states.device)[:, None]).double().sum()
            )
    return found


class AnswersNotComparable(UserError):
    """Two answers cannot be compared: they are the same tokens, or one is the beginning of the other."""


def encode_answers(
    runner: Runner, text: str, left: tuple[int, ...], answers: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Encode two answers to the same text, and find at which token the answers begin.

    The answers begin after the last token that the text alone and the text with either answer have in common.
    A space is put before the answers, unless the text ends in white space, a bracket or a special token. If
    both answers then begin with the same token, the other spacing is tried. It is used if it makes each
    answer a single token.

    Args:
        runner: The model's runner.
        text: The whole text before the answers.
        left: Token ids of the beginning of the text, which must stay as they are.
        answers: Text of the matching answer (the one that shows the persona) and of the other answer.

    Returns:
        `left`, the ids after it up to the decision token (the last token before the answer), and the ids of
        both answers.

    Raises:
        AnswersNotComparable: One answer is the beginning of the other, or the tokenizer merges them with the
            prompt.
    """
    plain = tuple(runner.encode(text))
    tight = not text or text[-1].isspace() or text[-1] in "([{\"'>"
    ways = [_continued(runner, text + space, plain, answers) for space in (("", " ") if tight else (" ", ""))]
    for end, (matching, other) in ways:
        alike = not matching or not other or matching[0] == other[0]
        if (
            end >= len(left)
            and not alike
            and (end, (matching, other)) in (ways[0], (end, (matching[:1], other[:1])))
        ):
            return left, plain[len(left) : end], (matching, other)
    end, (matching, other) = ways[0]
    shorter = min(len(matching), len(other))
    if end < len(left) or matching[:shorter] == other[:shorter]:
        raise AnswersNotComparable(
            f"the answers {answers[0]!r} and {answers[1]!r} cannot be compared: {_why_not(matching, other, end < len(left))}"
        )
    return left, plain[len(left) : end], (matching, other)


def _continued(
    runner: Runner, text: str, plain: tuple[int, ...], answers: tuple[str, str]
) -> tuple[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return how many ids the text shares with both continued texts, and both answers' ids after these."""
    joined = [tuple(runner.encode(text + answer)) for answer in answers]
    end = min(_common(plain, ids) for ids in joined)
    return end, (joined[0][end:], joined[1][end:])


def _why_not(matching: Sequence[int], other: Sequence[int], merged: bool) -> str:
    if merged:
        return "this model's tokenizer merges their beginning with the prompt"
    if tuple(matching) == tuple(other):
        return "this model reads both as the same tokens"
    return "one is the beginning of the other, so whatever makes it likelier raises both"


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
