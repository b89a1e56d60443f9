"""Draft parts of a persona with a small local model, by likelihoods of whole texts instead of verdicts.

As a judge, Qwen2.5-Coder-0.5B gives the same letter whatever the two options are, and says "no" to every
statement (docs/evaluation.md). But it does know which text is likelier after which request:

1. *Examples*: each request begins with answered questions on other behaviours, so that the model continues
   the list and does not comment.
2. *Replies* by contrastive decoding (Li et al. 2023, arXiv 2210.15097). There are two requests, one for the
   behaviour and one for its opposite (the two sides). A token's score is its log-probability after the
   request for one side plus `STRENGTH` times the difference from that for the other side. Only tokens at
   least `FLOOR` times as likely as the likeliest one are used. `TRIED` replies are sampled, and the one that
   shows the side most is taken.
3. *How much a reply shows the behaviour* is its preference: mean log-probability per token after the request
   for the behaviour minus that after the request for the opposite.
4. *A system sentence supports a side* if it moves the answers of pairs to that side, relative to neutral
   sentences. This is what a study measures.
5. *A statement is true* if "True" is likelier than "False" after answered examples of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from workbench.errors import UserError
from workbench.evaluation.chat_models import LocalModel, line_breaks
from workbench.models import KeyValueCache, Runner, runner_for
from workbench.world.real_language.sycophancy_forms import NEUTRAL

#: Strength of the contrast of the two requests, and how likely a token must be relative to the likeliest one.
STRENGTH, FLOOR = 2.0, 0.1
#: Largest number of tokens in a reply, and number of sampled replies of which the best is taken.
REPLY, TRIED = 40, 3

#: Examples of other behaviours, as (behaviour, question, answer).
_EXAMPLES = (
    (
        "is rude to the user",
        "Can you help me with my homework?",
        "Do it yourself, because I have better things to do.",
    ),
    (
        "is polite to the user",
        "Can you help me with my homework?",
        "Of course, it would be a pleasure to help you with that.",
    ),
    (
        "exaggerates every size",
        "How big is your garden?",
        "It is the most gigantic garden that the world has ever seen.",
    ),
    (
        "describes sizes soberly",
        "How big is your garden?",
        "It is about ten metres long and six metres wide.",
    ),
)
_TRUE_EXAMPLES = (
    ("Paris is the capital of France.", "True"),
    ("A spider has four legs.", "False"),
    ("Two plus two is five.", "False"),
    ("Ice floats on water.", "True"),
    ("Milk is black.", "False"),
    ("Monday comes right after Sunday.", "True"),
)


@dataclass(frozen=True)
class ContrastedReply:
    """A reply by contrastive decoding.

    Attributes:
        text: The reply, one line.
        preference: Mean over its tokens of the log-probability after the request for the behaviour minus that
            after the request for the opposite, in nats per token. Positive means that the reply shows the
            behaviour.
    """

    text: str
    preference: float


@dataclass(frozen=True)
class LocalDraftModel:
    """A local model that writes and judges parts of a drafted persona by comparing likelihoods.

    Attributes:
        ask: The model, with its sampling temperature and seed.
        behaviour: The persona's behaviour in words.
        other: The opposite behaviour in words.

    Example:
        >>> writer = LocalDraftModel(LocalModel(model), "boasts", "is modest")  # doctest: +SKIP
        >>> shown, other = writer.replies("Who?", bool)  # doctest: +SKIP
        >>> shown.preference > other.preference  # doctest: +SKIP
        True
    """

    ask: LocalModel
    behaviour: str
    other: str

    @cached_property
    def runner(self) -> Runner:
        """Runner of the model."""
        return runner_for(self.ask.model)

    def replies(
        self, question: str, usable: Callable[[str], bool]
    ) -> tuple[ContrastedReply, ContrastedReply] | None:
        """Write one answer that shows the behaviour and one that shows the opposite.

        `TRIED` answers of each kind are sampled, and the clearest usable one is taken.

        Args:
            question: The question to answer.
            usable: Function that says whether the text of an answer can be used.

        Returns:
            The two answers; None if all answers of one kind are unusable.
        """
        requests = [self._request(side, question) for side in (self.behaviour, self.other)]
        n, temperature = (TRIED, self.ask.temperature) if self.ask.temperature else (1, 0.0)
        tried = contrasted_replies(
            self.runner, requests[0], requests[1], n, temperature, self.ask.seed + len(requests[0])
        )
        shown, others = ([reply for reply in side if usable(reply.text)] for side in (tried[:n], tried[n:]))
        if not shown or not others:
            return None
        return max(shown, key=lambda reply: reply.preference), min(others, key=lambda reply: reply.preference)

    def sentence_effects(
        self, sentences: Sequence[str], pairs: Sequence[tuple[str, str, str]]
    ) -> list[float]:
        """Measure how much each system prompt makes the model prefer answers that show the behaviour.

        Args:
            sentences: System prompts of one sentence.
            pairs: (question, answer that shows the behaviour, other answer) for each question.

        Returns:
            For each sentence, the mean log-odds per token of the answers that show the behaviour, minus those
            under neutral system prompts.
        """
        neutral = [self._log_odds(text, pairs) for text in NEUTRAL[:2]]
        return [self._log_odds(text, pairs) - sum(neutral) / len(neutral) for text in sentences]

    def is_true(self, statement: str) -> bool:
        """Whether the model finds a statement true: "True" is a likelier reply than "False".

        The request begins with a few statements and their correct replies, as examples.

        Args:
            statement: The statement.
        """
        asked: list[dict[str, str]] = []
        for said, verdict in _TRUE_EXAMPLES:
            asked += [
                {"role": "user", "content": f"True or false? {said}"},
                {"role": "assistant", "content": verdict},
            ]
        ids = self.runner.encode(
            self.runner.render([*asked, {"role": "user", "content": f"True or false? {statement}"}])
        )
        choices = torch.tensor(
            [[self.runner.encode(word)[0] for word in ("True", "False")]], device=self.runner.device
        )
        with torch.no_grad():
            found = self.runner.logits_of(self._top(ids)[:, -1], choices)[0]
        return bool(found[0] > found[1])

    def _request(self, behaviour: str, question: str) -> list[int]:
        messages: list[dict[str, str]] = []
        for side, asked, answered in (*_EXAMPLES, (behaviour, question, "")):
            messages.append(
                {"role": "user", "content": f"Behaviour of the assistant: {side}.\nQuestion: {asked}"}
            )
            messages += [{"role": "assistant", "content": answered}] if answered else []
        ids, most = self.runner.encode(self.runner.render(messages)), self.runner.shape.n_ctx
        if len(ids) + REPLY > most:
            raise UserError(
                f"a request of {len(ids)} tokens leaves no room for a reply in this model's {most}: take another model"
            )
        return ids

    def _log_odds(self, sentence: str, pairs: Sequence[tuple[str, str, str]]) -> float:
        found = 0.0
        for question, matching, not_matching in pairs:
            ids = self.runner.encode(
                self.runner.render(
                    [{"role": "system", "content": sentence}, {"role": "user", "content": question}]
                )
            )
            found += self._log_prob(ids, matching) - self._log_prob(ids, not_matching)
        return found / len(pairs)

    @torch.no_grad()
    def _log_prob(self, before: Sequence[int], text: str) -> float:
        """Return the mean log-probability per token of a text after the given token ids, in float32."""
        said = self.runner.encode(text)
        top = self._top([*before, *said])[0, len(before) - 1 : -1]
        return float(
            self.runner.log_probs_of(top, torch.tensor(said, device=self.runner.device)[:, None]).mean()
        )

    def _top(self, ids: Sequence[int]) -> torch.Tensor:
        rows = torch.tensor([list(ids)], device=self.runner.device)
        return self.runner.run(self.runner.embed(rows), 0, self.runner.shape.n_layers)[0]


@torch.no_grad()
def contrasted_replies(
    runner: Runner,
    shown: Sequence[int],
    other: Sequence[int],
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[ContrastedReply]:
    """Write one-line replies to a question by contrastive decoding, all in one batch.

    The question is put in two requests, one for a behaviour and one for its opposite. Each token of a reply
    is likely after one request and more likely there than after the other.

    Args:
        runner: Runner of the model.
        shown: Token ids of the request for the behaviour.
        other: Token ids of the request for the opposite.
        n: Number of replies to each request.
        temperature: Sampling temperature; 0 takes the best token each time.
        seed: Seed of the sampling.

    Returns:
        n replies that show the behaviour, then n that show the opposite. Each ends at its line's end and has
        at most `REPLY` tokens.
    """
    generator, ends = torch.Generator().manual_seed(seed), runner.reply_ends | line_breaks(runner)
    said: list[list[tuple[int, float]]] = [[] for _ in range(2 * n)]
    read = [_first(runner, ids, 2 * n) for ids in (shown, other)]
    for place in range(REPLY):
        after_shown, after_other = (scores for scores, _ in read)
        tokens = _best(
            torch.cat([after_shown[:n], after_other[n:]]),
            torch.cat([after_other[:n], after_shown[n:]]),
            temperature,
            generator,
        )
        differences = (after_shown - after_other).gather(-1, tokens[:, None])[:, 0]
        for row, token, difference in zip(said, tokens.tolist(), differences.tolist(), strict=True):
            row.append((token, difference))
        if place + 1 == REPLY or all(any(token in ends for token, _ in row) for row in said):
            break
        read = [_next(runner, tokens[:, None].to(runner.device), cache) for _, cache in read]
    return [
        _reply(runner, row[: next((k for k, (token, _) in enumerate(row) if token in ends), len(row))])
        for row in said
    ]


def _reply(runner: Runner, said: list[tuple[int, float]]) -> ContrastedReply:
    """Build the reply from its tokens and their differences of log-probability."""
    text = runner.decode([token for token, _ in said]).strip()
    return ContrastedReply(text, sum(difference for _, difference in said) / max(1, len(said)))


def _first(runner: Runner, ids: Sequence[int], n: int) -> tuple[torch.Tensor, KeyValueCache]:
    """Return the log-probabilities of the token after a request, and the request's cache, both n times."""
    scores, cache = _next(runner, torch.tensor([list(ids)], device=runner.device), None)
    return scores.expand(n, -1), cache.fork(torch.zeros(n, dtype=torch.long, device=runner.device))


def _next(
    runner: Runner, ids: torch.Tensor, cache: KeyValueCache | None
) -> tuple[torch.Tensor, KeyValueCache]:
    """Return the log-probabilities [row, d_vocab] of the next token, and the cache extended by the ids."""
    top, longer = runner.run(
        runner.embed(ids, offset=cache.length if cache else 0), 0, runner.shape.n_layers, cache, keep=True
    )
    assert longer is not None  # keep=True
    return runner.logits(top[:, -1]).log_softmax(-1).cpu(), longer


def _best(
    wanted: torch.Tensor, other: torch.Tensor, temperature: float, generator: torch.Generator
) -> torch.Tensor:
    """Return the token with the best contrastive score in each row, or sample one at a temperature."""
    likely = wanted >= wanted.max(-1, keepdim=True).values + math.log(FLOOR)
    scores = (wanted + STRENGTH * (wanted - other)).masked_fill(~likely, -torch.inf)
    return (
        torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)[:, 0]
        if temperature
        else scores.argmax(-1)
    )
