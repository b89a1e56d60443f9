"""Render a question with a prompt, and compute the log-probability of every token of an answer after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.contexts import Slot
from workbench.errors import UserError
from workbench.models import Runner, TokenLayout, pad_right
from workbench.prompted_chat import render_with_prompt


def ask(runner: Runner, question: str, prompt: str | None, slot: Slot = "system") -> str:
    """Render a question in the chat template, up to the beginning of the assistant's answer.

    Args:
        runner: The model's runner.
        question: Text of the user's message.
        prompt: Text of the prompt. None: no prompt, the question alone.
        slot: Place in the chat where the prompt goes.
    """
    if prompt is None:
        return runner.render([{"role": "user", "content": question}])
    return render_with_prompt(runner, question, prompt, slot)


@dataclass(frozen=True)
class Continuation:
    """Token ids of a text with an answer after it.

    Attributes:
        ids: Ids of the text and the answer.
        start: Index of the first token of the answer, the first that is scored.
    """

    ids: tuple[int, ...]
    start: int

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the answer, at least 1."""
        return len(self.ids) - self.start


def continuation(runner: Runner, text: str, answer: str) -> Continuation:
    """Encode a text followed by an answer.

    A space is put between them unless the text is empty or ends in white space, a bracket or a quote.

    Args:
        runner: The model's runner.
        text: The text before the answer.
        answer: The answer, whose tokens are scored.

    Raises:
        UserError: The answer adds no token to the text.
    """
    tight = not text or text[-1].isspace() or text[-1] in "([{\"'>"
    plain, whole = runner.encode(text), runner.encode(text + ("" if tight else " ") + answer)
    start = next(
        (i for i, (a, b) in enumerate(zip(plain, whole, strict=False)) if a != b), min(len(plain), len(whole))
    )
    if not answer.strip() or start >= len(whole) or start == 0:
        raise UserError(f"nothing to score: the answer {answer[:40]!r} adds no token to the text before it")
    return Continuation(tuple(whole), start)


@torch.no_grad()
def token_log_probs(
    runner: Runner, rows: Sequence[Continuation], batch_tokens: int = 8192
) -> list[Float[Tensor, " token"]]:
    """Compute the log-probability of every scored token, given all tokens to its left.

    Edits of the model that are active (steering, for example) are applied.

    Args:
        runner: The model's runner.
        rows: Texts with the answers to score (`continuation`).
        batch_tokens: Most tokens in one batch, padding included.

    Returns:
        One float32 tensor per row on the CPU, in nats.
    """
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for batch in _batches(rows, runner.at_most(batch_tokens)):
        picked = [rows[i] for i in batch]
        ids = pad_right([row.ids for row in picked]).to(runner.device)
        last = torch.tensor([row.start - 1 for row in picked], device=runner.device)
        nowhere = torch.zeros_like(last)
        with runner.placed(TokenLayout(nowhere, nowhere, last)):
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        for i, row, states in zip(batch, picked, resid, strict=True):
            wanted = torch.tensor(row.ids[row.start :], device=runner.device)
            found[i] = (
                runner.log_probs_of(states[row.start - 1 : len(row.ids) - 1], wanted[:, None])[:, 0]
                .float()
                .cpu()
            )
    return found


def _batches(rows: Sequence[Continuation], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of row numbers of similar length, of at most batch_tokens tokens or one row."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i].ids)):
        if batch and (len(batch) + 1) * len(rows[i].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
