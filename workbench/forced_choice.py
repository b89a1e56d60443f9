"""Forced choice: which of two answers the model finds likelier, and by how much.

1. Every context is run with the prompt in its slot (or bare), padded on the right, in batches of similar length.
2. log p(answer | context) is read at the decision token; an answer of several tokens is teacher-forced, and its mean
   log-probability per token is used, so that a shorter answer has no advantage.
3. log-odds = log p(matching) - log p(not matching); the model chooses the matching answer where they are above 0.

Published metrics for comparison: CAA (Rimsky et al. 2024) reports p(A)/(p(A)+p(B)), which is `p` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from workbench.contexts import Context, Contexts, encode_prompt
from workbench.html_text import html_table
from workbench.models import Runner, TokenLayout, pad_right, runner_for


@dataclass(frozen=True)
class Answers:
    """One entry a context, numpy float64. log_odds: log p(matching) - log p(not matching), nats, plus = shows the persona.
    matching_first: the matching option stood first. group, item_id: what belongs together."""

    log_odds: Float[np.ndarray, " context"]
    matching_first: np.ndarray
    group: tuple[str, ...]
    item_id: tuple[str, ...]

    @property
    def p(self) -> Float[np.ndarray, " context"]:
        """Probability of the matching answer among the two, 0 to 1."""
        return 1 / (1 + np.exp(-self.log_odds))

    @property
    def chose_matching(self) -> np.ndarray:
        """True where the matching answer is the likelier one."""
        return self.log_odds > 0

    @property
    def rate(self) -> float:
        """Share of contexts in which the matching answer is the likelier one (the paper's metric)."""
        return float(self.chose_matching.mean())

    @property
    def letter_a_share(self) -> float:
        """Share of contexts in which the option shown first is chosen; with both orders 0.5 means no letter bias."""
        return float((self.chose_matching == self.matching_first).mean())

    def frame(self) -> pd.DataFrame:
        """One row a context: item, group, matching_first, log_odds, p."""
        columns = {"item": self.item_id, "group": self.group, "matching_first": self.matching_first, "log_odds": self.log_odds, "p": self.p}
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        caption = f"{len(self.group)} contexts in {len(set(self.group))} groups: rate {self.rate:.0%}, mean log-odds {self.log_odds.mean():+.2f}"
        return html_table(self.frame(), caption, max_rows=8)


def answer(model: Any, contexts: Contexts, prompt: str | Sequence[int] | None = None, batch_tokens: int = 8192) -> Answers:
    """Log-odds of the two answers in every context, with a prompt (text or ids) in the slot or, with None, without any.

    batch_tokens: tokens run at a time. Hooks set by `Runner.edit` act, and find the batch's layout in `Runner.layout`.
    """
    runner = runner_for(model)
    ids = encode_prompt(runner, contexts, prompt) if isinstance(prompt, str) else prompt
    log_odds = answer_each(runner, contexts, [None if ids is None else tuple(ids)] * len(contexts), batch_tokens)
    return package(contexts, log_odds)


def answer_prompts(model: Any, contexts: Contexts, prompts: Sequence[str | Sequence[int]], batch_tokens: int = 8192) -> list[Answers]:
    """`answer` for each of several prompts, to rounding.

    Where contexts differ left of the slot (a prompt behind the question) and answers are single tokens, what stands there is run once
    for all prompts. Hooks then see prompts and suffixes apart from what stands left of them.
    """
    runner = runner_for(model)
    ids = [tuple(encode_prompt(runner, contexts, prompt) if isinstance(prompt, str) else prompt) for prompt in prompts]
    if contexts.shared_prefix or len(ids) < 2 or any(len(a) > 1 for context in contexts for a in context.answers):
        return [answer(runner, contexts, each, batch_tokens) for each in ids]
    columns = np.stack([_behind(runner, context, ids, batch_tokens) for context in contexts])
    return [package(contexts, column) for column in columns.T]


@torch.no_grad()
def _behind(runner: Runner, context: Context, prompts: Sequence[tuple[int, ...]], batch_tokens: int) -> Float[np.ndarray, " prompt"]:
    """Log-odds of a context's single-token answers with each prompt, behind the one run of what stands left of the slot."""
    top, kv, found = runner.shape.n_layers, None, []
    if context.prefix_ids:
        _, kv = runner.run(runner.embed(torch.tensor([context.prefix_ids], device=runner.device)), 0, top, keep=True)
    tails = [(*prompt, *context.suffix_ids) for prompt in prompts]
    answers = torch.tensor([[a[0] for a in context.answers]], device=runner.device)
    at_once = max(1, batch_tokens // max(map(len, tails)))
    for start in range(0, len(tails), at_once):
        some = tails[start : start + at_once]
        last = torch.tensor([len(tail) - 1 for tail in some], device=runner.device)
        forked = kv.fork(torch.zeros_like(last)) if kv is not None else None
        resid = runner.run_at(runner.embed(pad_right(some).to(runner.device), len(context.prefix_ids)), 0, top, last, forked)
        logits = runner.logits_of(resid[:, 0], answers.expand(len(some), -1))
        found.append((logits[:, 0] - logits[:, 1]).double().cpu().numpy())
    return np.concatenate(found)


def package(contexts: Contexts, log_odds: np.ndarray) -> Answers:
    """Answers from log-odds that were computed elsewhere, in the order of the contexts."""
    first = np.array([c.matching_first for c in contexts])
    return Answers(np.asarray(log_odds, dtype=np.float64), first, contexts.groups, tuple(c.item.id for c in contexts))


def answer_each(
    model: Any, contexts: Sequence[Context], prompts: Sequence[tuple[int, ...] | None], batch_tokens: int = 8192
) -> Float[np.ndarray, " context"]:
    """Log-odds where every context has a prompt of its own (context i with prompts[i])."""
    runner = runner_for(model)
    rows = [row for i, (c, p) in enumerate(zip(contexts, prompts, strict=True)) for row in _rows(i, c, p)]
    scores = np.zeros((len(contexts), 2))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for batch in _batches([rows[i] for i in order], batch_tokens):
        for row, values in zip(batch, _score(runner, batch), strict=True):
            for side, value in zip(row.sides, values, strict=True):
                scores[row.context, side] = value
    return scores[:, 0] - scores[:, 1]


@dataclass(frozen=True)
class _Row:
    """One sequence to run: up to the decision token, then all but the last token of an answer; `answers` are scored on it."""

    context: int
    ids: tuple[int, ...]
    decision: int
    prompt: tuple[int, int]
    answers: tuple[tuple[int, ...], ...]
    sides: tuple[int, ...]


def _rows(index: int, context: Context, prompt_ids: tuple[int, ...] | None) -> list[_Row]:
    ids = context.ids(prompt_ids)
    start = len(context.prefix_ids)
    span = (start, start + len(prompt_ids)) if prompt_ids is not None else (0, 0)
    if all(len(a) == 1 for a in context.answers):
        return [_Row(index, ids, len(ids) - 1, span, context.answers, (0, 1))]
    return [_Row(index, (*ids, *a[:-1]), len(ids) - 1, span, (a,), (side,)) for side, a in enumerate(context.answers)]


def _batches(rows: list[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows sorted by length, cut so that rows x longest stays within batch_tokens (one row at least)."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row.ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _score(runner: Runner, batch: list[_Row]) -> list[list[float]]:
    """Mean log-probability per token of every answer of every row."""
    ids = pad_right([row.ids for row in batch]).to(runner.device)
    as_tensor = lambda values: torch.tensor(values, device=runner.device)  # noqa: E731
    decision = as_tensor([row.decision for row in batch])
    layout = TokenLayout(as_tensor([r.prompt[0] for r in batch]), as_tensor([r.prompt[1] for r in batch]), decision)
    spans = [max(len(a) for a in row.answers) for row in batch]
    with runner.placed(layout):
        if max(spans) == 1:
            wanted = runner.run_at(runner.embed(ids), 0, runner.shape.n_layers, decision)[:, 0]
        else:
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
            where = [(r, row.decision + k) for r, (row, n) in enumerate(zip(batch, spans, strict=True)) for k in range(n)]
            wanted = resid[[r for r, _ in where], [pos for _, pos in where]]
    log_probs = runner.logits(wanted).log_softmax(dim=-1)
    starts = np.cumsum([0, *spans[:-1]])
    return [[float(log_probs[range(s, s + len(a)), list(a)].mean()) for a in row.answers] for row, s in zip(batch, starts, strict=True)]
