"""Forced choice: which of two answers the model finds likelier, and by how much.

1. The model is run on every context with the prompt in its slot (the place in the chat where the prompt
   goes), or without a prompt, padded on the right, in batches of similar length.
2. Each answer is scored whole, teacher-forced: the sum of its tokens' log-probabilities, normalised as the
   persona says (`answer_tokens`, `Normalization`). Answers may have any length and begin with the same
   tokens.
3. log-odds = score of the matching answer (the one that shows the persona) - score of the other answer. The
   model chooses the matching answer if the log-odds are above 0.

CAA (Rimsky et al. 2024) reports the probability p(A)/(p(A)+p(B)); `Answers.p` is the same quantity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from workbench.answer_tokens import AnswerTable
from workbench.contexts import Context, Contexts
from workbench.errors import UserError
from workbench.html_text import html_table, plain_table
from workbench.models import Runner, TokenLayout, not_finite, pad_right, runner_for
from workbench.prompt_tokens import encode_prompt


@dataclass(frozen=True, repr=False)
class Answers:
    """Log-odds of the matching answer (the one that shows the persona), one entry per context.

    Attributes:
        log_odds: float64, log p(matching) - log p(not matching) in nats, of whole answers, with the
            normalization for their length that the persona specifies. Above 0 the model prefers the answer
            that shows the persona.
        matching_first: Whether the matching option was shown first.
        group: Question group of each context (questions that belong together and are resampled together).
        item_id: Id of the question of each context.

    Example:
        >>> answers = wb.answer(model, contexts)
        >>> answers.log_odds.shape == (len(contexts),) and 0 <= answers.rate <= 1
        True
    """

    log_odds: Float[np.ndarray, " context"]
    matching_first: np.ndarray
    group: tuple[str, ...]
    item_id: tuple[str, ...]

    @property
    def p(self) -> Float[np.ndarray, " context"]:
        """Probability of the matching answer (the one that shows the persona) among the two, per context."""
        return 1 / (1 + np.exp(-self.log_odds))

    @property
    def chose_matching(self) -> np.ndarray:
        """Whether the model finds the answer that shows the persona the likelier one, per context."""
        return self.log_odds > 0

    @property
    def rate(self) -> float:
        """Fraction of contexts in which the answer that shows the persona is the likelier one (0 to 1).

        This is the metric of the paper (arXiv 2601.02896).
        """
        return float(self.chose_matching.mean())

    @property
    def letter_a_share(self) -> float:
        """Fraction of contexts in which the model chooses the option shown first.

        If each question is asked in both orders, 0.5 means no bias to a letter.
        """
        return float((self.chose_matching == self.matching_first).mean())

    def frame(self) -> pd.DataFrame:
        """Return a table with one row per context (a question in one option order).

        Columns are `item` (id of the question), `group` (its question group), `matching_first` (whether the
        answer that shows the persona is shown first), `log_odds` of that answer in nats, and `p`, its
        probability.
        """
        columns = {
            "item": self.item_id,
            "group": self.group,
            "matching_first": self.matching_first,
            "log_odds": self.log_odds,
            "p": self.p,
        }
        return pd.DataFrame(columns)

    @property
    def _caption(self) -> str:
        mean = f"rate {100 * self.rate:.0f} %, mean log-odds {self.log_odds.mean():+.2f}"
        return f"{len(self.group)} contexts in {len(set(self.group))} groups: {mean}"

    def __repr__(self) -> str:
        return plain_table(self.frame(), self._caption, max_rows=8)

    def _repr_html_(self) -> str:
        return html_table(self.frame(), self._caption, max_rows=8)


def answer(
    model: Any, contexts: Contexts, prompt: str | Sequence[int] | None = None, batch_tokens: int = 8192
) -> Answers:
    """Compute the log-odds of the two answers in every context, with or without a prompt.

    Hooks that were set with `Runner.edit` (steering, for example) are active. During the run, `Runner.layout`
    tells them which positions are the prompt and the last token before the answer.

    Args:
        model: A loaded model or its runner.
        contexts: Questions rendered with a slot, the place where the prompt goes (`make_contexts`).
        prompt: Text or token ids of the prompt. None: no prompt, the question is rendered without the slot.
        batch_tokens: Most tokens in one batch, padding included.

    Returns:
        The log-odds of every context, in the order of the contexts; positive if the answer that shows the
        persona is the likelier one.

    Raises:
        UserError: The prompt's text does not keep its tokens in the slot.

    Example:
        >>> with_prompt, bare = wb.answer(model, contexts, "be honest"), wb.answer(model, contexts)
        >>> bool((with_prompt.log_odds - bare.log_odds).mean() < 0)      # less sycophantic
        True
    """
    runner = runner_for(model)
    ids = encode_prompt(runner, contexts, prompt) if isinstance(prompt, str) else prompt
    log_odds = answer_each(
        runner, contexts, [None if ids is None else tuple(ids)] * len(contexts), batch_tokens
    )
    return package(contexts, log_odds)


def answer_prompts(
    model: Any, contexts: Contexts, prompts: Sequence[str | Sequence[int]], batch_tokens: int = 8192
) -> list[Answers]:
    """Compute the log-odds of the two answers in every context, with each of several prompts.

    The results equal those of `answer` for the single prompts up to rounding.

    If the text before the prompt differs between contexts (as with a prompt after the question), that text is
    run once, and its key-value cache is used for all prompts. Hooks then see only the positions of the prompt
    and of the text after it.

    Args:
        model: A loaded model or its runner.
        contexts: Questions rendered with a slot (`make_contexts`).
        prompts: Text or token ids of each prompt.
        batch_tokens: Most tokens in one batch.

    Returns:
        The answers with each prompt, in the order of the prompts.
    """
    runner = runner_for(model)
    ids = [
        tuple(encode_prompt(runner, contexts, prompt) if isinstance(prompt, str) else prompt)
        for prompt in prompts
    ]
    if contexts.shared_prefix or len(ids) < 2:
        return [answer(runner, contexts, each, batch_tokens) for each in ids]
    columns = np.stack([_after_prefix(runner, context, ids, batch_tokens) for context in contexts])
    check_answers(runner, [(context, prompt) for context in contexts for prompt in ids], columns)
    return [package(contexts, column) for column in columns.T]


@torch.no_grad()
def _after_prefix(
    runner: Runner, context: Context, prompts: Sequence[tuple[int, ...]], batch_tokens: int
) -> Float[np.ndarray, " prompt"]:
    """Compute the log-odds of one context with each prompt, after one run of the text left of the slot."""
    top, kv = runner.shape.n_layers, None
    if context.prefix_ids:
        _, kv = runner.run(
            runner.embed(torch.tensor([context.prefix_ids], device=runner.device)), 0, top, keep=True
        )
    branches = own_branches(context)
    table = AnswerTable(branches, runner.device)
    rows = [(p, b) for p in range(len(prompts)) for b in range(len(branches))]
    found, at_once = (
        np.zeros(len(prompts)),
        max(
            1,
            runner.at_most(batch_tokens)
            // max(len(p) + len(b.after_prompt) for p in prompts for b in branches),
        ),
    )
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        tails = [(*prompts[p], *branches[b].after_prompt) for p, b in some]
        decision = torch.tensor(
            [len(prompts[p]) + len(context.suffix_ids) - 1 for p, _ in some], device=runner.device
        )
        forked = kv.fork(torch.zeros_like(decision)) if kv is not None else None
        embedded = runner.embed(pad_right(tails).to(runner.device), len(context.prefix_ids))
        members = [b for _, b in some]
        if table.one_token:
            logits = runner.logits_of(
                runner.run_at(embedded, 0, top, decision, forked)[:, 0], table.first[members]
            )
            values = logits[:, 0] - logits[:, 1]
        else:
            values = table.scores(runner, runner.run(embedded, 0, top, forked)[0], decision, members)
        np.add.at(found, [p for p, _ in some], values.double().cpu().numpy() / len(branches))
    return found


def own_branches(context: Context) -> list[Context]:
    """Return the one or two token sequences (branches) that are run to score a context's two answers.

    Args:
        context: One rendered question.

    Returns:
        The context alone if its answers are single tokens or it is already such a branch; otherwise its one
        or two branches.
    """
    if context.one_token or context.branch is not None:
        return [context]
    n = len(context.branches)
    return [replace(context, branch=k, n_branches=n) for k in range(n)]


def package(contexts: Contexts, log_odds: np.ndarray) -> Answers:
    """Make the `Answers` of some contexts from log-odds that were computed by other means.

    Args:
        contexts: The questions.
        log_odds: One number per context in nats, in the order of the contexts.
    """
    first = np.array([c.matching_first for c in contexts])
    return Answers(
        np.asarray(log_odds, dtype=np.float64), first, contexts.groups, tuple(c.item.id for c in contexts)
    )


def answer_each(
    model: Any,
    contexts: Sequence[Context],
    prompts: Sequence[tuple[int, ...] | None],
    batch_tokens: int = 8192,
) -> Float[np.ndarray, " context"]:
    """Compute the log-odds of each context with a different prompt for each (context i with prompts[i]).

    Args:
        model: A loaded model or its runner.
        contexts: Questions rendered with a slot.
        prompts: Token ids of the prompt of each context. None: no prompt.
        batch_tokens: Most tokens in one batch.

    Returns:
        float64 [context], log p(matching) - log p(not matching) in nats.

    Raises:
        UserError: A question with its prompt and answer does not fit into the model's context, or a log-odds
            is not a finite number.
    """
    runner = runner_for(model)
    rows = [
        _Row(i, branch, p)
        for i, (c, p) in enumerate(zip(contexts, prompts, strict=True))
        for branch in own_branches(c)
    ]
    longest = max((len(row.ids) for row in rows), default=0)
    if longest > runner.shape.n_ctx:
        raise UserError(
            f"a question with its prompt and answer has {longest} tokens: this model's context holds {runner.shape.n_ctx}"
        )
    scores = np.zeros(len(contexts))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for batch in _batches([rows[i] for i in order], runner.at_most(batch_tokens)):
        for row, value in zip(batch, _score(runner, batch), strict=True):
            scores[row.index] += value / row.branch.n_branches
    check_answers(runner, list(zip(contexts, prompts, strict=True)), scores)
    return scores


def check_answers(
    runner: Runner, asked: Sequence[tuple[Context, tuple[int, ...] | None]], log_odds: Float[np.ndarray, ...]
) -> None:
    """Raise an error if a log-odds is not a finite number.

    Args:
        runner: The model's runner.
        asked: The context and the prompt's ids of each log-odds (None: no prompt).
        log_odds: The log-odds to check, in the same order.

    Raises:
        UserError: A log-odds is NaN or infinite. The message names the question and the first block whose
            output is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(log_odds.reshape(-1)))
    if len(bad):
        context, prompt = asked[int(bad[0])]
        where = not_finite(runner, own_branches(context)[0].sequence(prompt))
        raise UserError(
            f"the question {context.item.question[:60]!r} has log-odds that are no finite number: {where}"
        )


@dataclass(frozen=True)
class _Row:
    """One token sequence to run: a branch of context number `index`, with that context's prompt."""

    index: int
    branch: Context
    prompt_ids: tuple[int, ...] | None

    @cached_property
    def ids(self) -> tuple[int, ...]:
        return self.branch.sequence(self.prompt_ids)

    @property
    def decision(self) -> int:
        return len(self.ids) - len(self.branch.tail) - 1

    @property
    def prompt(self) -> tuple[int, int]:
        """First position of the prompt and the position after its last; (0, 0) without a prompt."""
        start = len(self.branch.prefix_ids)
        return (0, 0) if self.prompt_ids is None else (start, start + len(self.prompt_ids))


def _batches(rows: list[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Yield batches of rows (sorted by length) of at most batch_tokens tokens with padding, or one row."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row.ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _score(runner: Runner, batch: list[_Row]) -> Float[np.ndarray, " row"]:
    """Compute the part of the log-odds that each row's branch gives, multiplied by its number of branches."""
    ids = pad_right([row.ids for row in batch]).to(runner.device)
    as_tensor = lambda values: torch.tensor(values, device=runner.device)  # noqa: E731
    decision = as_tensor([row.decision for row in batch])
    layout = TokenLayout(
        as_tensor([r.prompt[0] for r in batch]), as_tensor([r.prompt[1] for r in batch]), decision
    )
    table = AnswerTable([row.branch for row in batch], runner.device)
    with runner.placed(layout):
        if table.one_token:
            resid = runner.run_at(runner.embed(ids), 0, runner.shape.n_layers, decision)[:, 0]
        else:
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
    if table.one_token:
        log_probs = runner.log_probs_of(resid, table.first).double().cpu().numpy()
        return log_probs[:, 0] - log_probs[:, 1]
    return table.scores(runner, resid, decision, range(len(batch))).double().cpu().numpy()
