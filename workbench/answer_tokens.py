"""Two answers after a question, token by token: which sequences must be run to score them whole, and how the score is read.

1. An answer's score is the sum of its tokens' log-probabilities, each given all tokens to its left (teacher
   forcing), times a weight that `Normalization` names; the log-odds are the matching answer's score minus the
   other's.
2. A token's log-probability is its logit minus the log-normalizer of its position. Where both answers part,
   one position gives both tokens and with equal weights the normalizers cancel: for one-token answers the
   score is a difference of two logits, nothing else.
3. Tokens that both answers share are run once. Two sequences (*branches*) are needed where both answers go on
   after they part, else one.
4. Every branch reads a part of the score, multiplied by the number of branches: the mean over branches is the
   score. So whatever takes means over contexts takes them over branches (`Contexts.branched`), and no search,
   gradient or patch needs to know of answers.
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

#: What a side's score counts for: the log-odds, and either answer's own score.
LOG_ODDS, MATCHING, OTHER = (1.0, -1.0), (1.0, 0.0), (0.0, 1.0)


@dataclass(frozen=True)
class AnswerBranch:
    """One sequence that answers are read from.

    tail: tokens that are run after the decision token. reads: (positions after the decision token, token
    predicted there, weight in the matching answer's score, weight in the other's).
    """

    tail: tuple[int, ...] = ()
    reads: tuple[tuple[int, int, float, float], ...] = ()


def answer_branches(
    answers: tuple[Sequence[int], Sequence[int]], weights: tuple[float, float]
) -> tuple[AnswerBranch, ...]:
    """One or two sequences that score two answers, neither of which is a prefix of the other. weights: of each answer's tokens."""
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
    """The answers of a context (`contexts.Context`)."""

    @property
    def answers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the matching and of the other answer."""
        ...

    @property
    def one_token(self) -> bool:
        """Whether each answer is one token, with no weight and no offset."""
        ...

    @property
    def reads(self) -> tuple[tuple[int, int, float, float], ...]:
        """(offset from the decision token, id, weight in the matching answer's score, weight in the other's) of each token read."""
        ...

    @property
    def offsets(self) -> tuple[float, float]:
        """Added to both answers' scores, nats (minus their prior log-probabilities under the rule `pmi`)."""
        ...

    @property
    def n_branches(self) -> int:
        """Sequences that are needed to score both answers: 1 or 2."""
        ...


class AnswerTable:
    """The answers of some (branched) contexts as padded tables, one row per context.

    first: first tokens of both answers. one_token: the score is the difference of two logits at the decision
    token.
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
        """Float32 scores (nats, normalised as the contexts say), differentiable.

        Args:
            runner: whose unembedding is read.
            stream: residuals after the last block.
            decision: each row's position of the decision token.
            members: each row's context.
            sides: what the matching and the other answer count.
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
    """The entries of a padded table that count: row, column, and by how much."""

    row: Int[Tensor, " entry"]
    column: Int[Tensor, " entry"]
    weight: Float[Tensor, " entry"]

    def summed(self, values: Float[Tensor, " entry"], rows: int) -> Float[Tensor, " row"]:
        """Weighted sum of each row's entries (as a padded sum, which has the same bits every time)."""
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
    """Index of the residuals that predict the chosen entries; where a run gave one position a row, that is the decision token."""
    row = chosen.row.to(stream.device)
    if stream.shape[1] == 1:
        return row, torch.zeros_like(row)
    return row, decision.to(stream.device)[row] + place[chosen.row, chosen.column].to(stream.device)


def _by_place(reads: Sequence[tuple[int, int, float, float]]) -> list[tuple[int, int, float, float]]:
    """The weights of all tokens that one position predicts, added up."""
    summed: dict[int, tuple[float, float]] = {}
    for place, _, mine, other in reads:
        before = summed.get(place, (0.0, 0.0))
        summed[place] = (before[0] + mine, before[1] + other)
    return [(place, 0, *weights) for place, weights in summed.items()]


def _padded(rows: Sequence[Sequence[tuple[int, int, float, float]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Places, tokens and weights of rows of unequal length; the weight of what is filled up is 0."""
    width = max(1, max(map(len, rows)))
    filled = [[*row, *([(0, 0, 0.0, 0.0)] * (width - len(row)))] for row in rows]
    place, token = (torch.tensor([[entry[k] for entry in row] for row in filled]) for k in (0, 1))
    return place, token, torch.tensor([[entry[2:] for entry in row] for row in filled])


@torch.no_grad()
def answer_log_probs(
    runner: Runner, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], batch_tokens: int = 8192
) -> list[float]:
    """Sum of the log-probabilities (nats) of the second ids after the first, for each pair, by plain passes."""
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
    """Two answers between which no choice can be read: equal token by token, or one the beginning of the other."""


def encode_answers(
    runner: Runner, text: str, left: tuple[int, ...], answers: tuple[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """(left, ids after left up to where the answers begin, answer ids): the context ends where text and both answers part.

    The answers follow without a space after white space, brackets and special tokens, otherwise with one.
    Where both then begin with the same token, the other way is tried for answers that are one token by it (a
    letter).
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
    """Where the text's own ids end and the answers' begin, and theirs."""
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
