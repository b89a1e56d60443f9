"""Measure a prompt for the panel: effects of each token and of the whole prompt, and the model's answers.

1. The text is encoded as in the slot, the place where the prompt goes. A text that is empty, too long or does
   not keep its tokens is refused.
2. Every target is scored with the prompt and without it, on the same contexts.
3. Each token is removed in turn (exact). If all contexts have the same text left of the slot, that text and
   the prompt are run once for each removal, and their key-value caches are used for all contexts.
4. A quick reading uses few contexts, of different question groups, and gives no intervals. If removal would
   run more than `QUICK_TOKENS` tokens and gradient x input costs less, gradient x input replaces it. An exact
   reading uses all contexts, always removes tokens, and gives 95 % intervals clustered by group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from workbench.answer_tokens import AnswerTable
from workbench.attribution import (
    AttributionProblem,
    AttributionTargets,
    EffectEstimate,
    GradientXInput,
    Ledger,
)
from workbench.attribution.token_removal import drop
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.html_text import shorten
from workbench.models import Runner, pad_right
from workbench.objectives import Readout
from workbench.prompt_tokens import encode_prompt, survives

Ids = tuple[int, ...]
Step = Callable[[int, int], None]
#: Most tokens that a quick reading runs for exact removal before it uses a cheaper estimate (about 0.3 s on
#: one core with the embedded model).
QUICK_TOKENS = 4096
#: Most characters of a text that is tokenised.
MAX_CHARACTERS = 20_000


@dataclass(frozen=True)
class PromptReading:
    """Measured effects of one prompt and its tokens on directions, SAE latents and the answer (the targets).

    Attributes:
        ids: Token ids of the prompt.
        tokens: Text of each token.
        text: Text of the prompt.
        targets: The quantities whose change is measured.
        estimates: For each method of estimation, the effect of each token on each target in each context
            (question), as an array [context, prompt_pos, target].
        groups: Question group of each context.
        with_prompt: Values of the targets with the prompt, in their units.
        without_prompt: Values of the targets without a prompt.
        exact: Whether all contexts were used and each token was removed in turn. Otherwise few contexts were
            used, and there are no intervals.
        seconds: Seconds that the measurement took.
        tokens_run: Number of tokens run, a backward pass counted as two forward passes.
    """

    ids: Ids
    tokens: tuple[str, ...]
    text: str
    targets: AttributionTargets = field(repr=False)
    estimates: dict[str, EffectEstimate] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    with_prompt: Float[np.ndarray, "context target"] = field(repr=False)
    without_prompt: Float[np.ndarray, "context target"] = field(repr=False)
    exact: bool
    seconds: float
    tokens_run: int

    @property
    def ledger(self) -> Ledger:
        """Effects of the prompt's tokens as a `Ledger`, the table that `attribute` returns.

        Raises:
            UserError: The effects were only estimated by gradients, not by removing each token.
        """
        if "removal" not in self.estimates:
            raise UserError(
                "this reading is an estimate without exact removal: take an exact one for a ledger"
            )
        total = self.with_prompt - self.without_prompt
        return Ledger(self.ids, self.tokens, self.text, self.targets, self.estimates, self.groups, total)

    @property
    def probabilities(self) -> Float[np.ndarray, "2 context"]:
        """Probability of the answer that shows the persona, among the two answers to each question.

        Row 0 is with the prompt, row 1 without it.
        """
        answer = next(i for i, target in enumerate(self.targets.items) if target.kind == "answer")
        return 1 / (1 + np.exp(-np.stack([self.with_prompt[:, answer], self.without_prompt[:, answer]])))


@dataclass(frozen=True)
class PromptReader:
    """Measures the effects of prompts on directions, SAE latents and the answer (the targets).

    Attributes:
        runner: The model's runner.
        contexts: Questions on which an exact measurement is made, with intervals.
        few: The few questions on which effects are measured while the user types.
        targets: The quantities whose change is measured.
        batch_tokens: Most tokens run at a time.
    """

    runner: Runner
    contexts: Contexts
    few: Contexts
    targets: AttributionTargets
    batch_tokens: int = 4096

    def read(self, text: str, exact: bool = False, step: Step | None = None) -> PromptReading:
        """Measure the effects of a prompt and of each of its tokens on the targets.

        Targets are directions, SAE latents and the answer.

        Args:
            text: The prompt.
            exact: Whether all contexts are used and each token is removed in turn, which gives intervals.
                Otherwise few contexts are used, and a gradient estimate if removal would take long.
            step: Function that is called with (number of tokens removed so far, number of tokens) to report
                progress.

        Raises:
            UserError: The prompt is empty, too long, or not representable in the model's tokens.
        """
        began = time.perf_counter()
        ids = self.encode(text)
        contexts = self.contexts if exact else self.few
        problem = AttributionProblem(self.runner, ids, contexts, self.targets, batch_tokens=self.batch_tokens)
        names = self._estimators(ids, exact)
        variants = [drop(ids, i) for i in range(len(ids))] if "removal" in names else []
        whole, *without = self._score(problem, [ids, *variants], step)
        estimates = {}
        if "removal" in names:
            estimates["removal"] = EffectEstimate(np.moveaxis(whole[None] - np.stack(without), 0, 1))
        if "gradient_x_input" in names:
            estimates["gradient_x_input"] = GradientXInput().estimate(problem)
        tokens = tuple(self.runner.decode([i]) for i in ids)
        bare = self.bare if exact else self.few_bare
        return PromptReading(
            ids,
            tokens,
            self.runner.decode(ids).strip(),
            self.targets,
            estimates,
            contexts.groups,
            whole,
            bare,
            exact,
            time.perf_counter() - began,
            sum(self._cost(ids, contexts, name) for name in names),
        )

    def encode(self, text: str) -> Ids:
        """Encode a prompt to the token ids that it has at its place in the chat.

        Args:
            text: The prompt.

        Raises:
            UserError: The text is empty, too long, or has a part that the tokenizer cannot represent.
        """
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"a prompt of {len(text):,} characters: expected at most {MAX_CHARACTERS:,}")
        ids = encode_prompt(self.runner, self.contexts, text.encode("utf-8", "replace").decode())
        longest, room = max(len(context.ids(ids)) for context in self.contexts), self.runner.shape.n_ctx
        if longest > room:
            raise UserError(
                f"the prompt makes a question of {longest:,} tokens: this model's context holds {room:,}"
            )
        read = self.runner.decode(ids)
        if not survives(self.runner, self.contexts, ids) or "".join(read.split()) != "".join(text.split()):
            raise UserError(
                f"this model reads {shorten(read, 80)!r}: a part of what is typed has no token of its own, or does not keep it"
            )
        return ids

    def quick_cost(self, ids: Ids) -> int:
        """Return how many tokens the model must run to measure a prompt while it is typed.

        A backward pass counts as two forward passes.

        Args:
            ids: Token ids of the prompt.
        """
        return sum(self._cost(ids, self.few, name) for name in self._estimators(ids, False))

    @cached_property
    def bare(self) -> Float[np.ndarray, "context target"]:
        """Values of all targets (directions, latents, the answer) without a prompt, on all of the questions."""
        return AttributionProblem(
            self.runner, (), self.contexts, self.targets, batch_tokens=self.batch_tokens
        ).without_prompt

    @cached_property
    def few_bare(self) -> Float[np.ndarray, "context target"]:
        """Values of all targets (directions, latents, the answer) without a prompt, on a few questions.

        These questions are used while the user types.
        """
        return AttributionProblem(
            self.runner, (), self.few, self.targets, batch_tokens=self.batch_tokens
        ).without_prompt

    def _estimators(self, ids: Ids, exact: bool) -> list[str]:
        costs = {name: self._cost(ids, self.few, name) for name in ("removal", "gradient_x_input")}
        estimate = costs["removal"] > QUICK_TOKENS and costs["gradient_x_input"] < costs["removal"]
        return (["removal"] if exact or not estimate else []) + (["gradient_x_input"] if estimate else [])

    def _cost(self, ids: Ids, contexts: Contexts, name: str) -> int:
        """Return the number of tokens an estimator runs; a backward pass counts as two forward passes."""
        lengths = [len(context.ids(ids)) for context in contexts]
        if name == "gradient_x_input":
            return sum(lengths) * (1 + 2 * len(self.targets.items))
        if _shared(contexts):
            head = len(contexts[0].prefix_ids) + len(ids)
            return (len(ids) + 1) * (head + sum(length - head for length in lengths))
        return (len(ids) + 1) * sum(lengths)

    def _score(
        self, problem: AttributionProblem, prompts: Sequence[Ids], step: Step | None
    ) -> Float[np.ndarray, "prompt context target"]:
        """Score the whole prompt and its removals, as many at a time as batch_tokens allows."""
        longest = max(len(context.ids(problem.prompt)) for context in problem.contexts)
        size = max(1, problem.batch_tokens // (longest * len(problem.contexts)))
        score = _shared_prefix_scores if _shared(problem.contexts) else AttributionProblem.scores
        parts = []
        for start in range(0, len(prompts), size):
            parts.append(score(problem, prompts[start : start + size]))
            if step is not None:
                step(min(start + size, len(prompts)) - 1, len(prompts) - 1)
        return np.concatenate(parts)


def _shared(contexts: Contexts) -> bool:
    """Whether the key-value cache of the text left of the slot and the prompt can serve all contexts."""
    return (
        contexts.shared_prefix
        and bool(contexts[0].prefix_ids)
        and all(context.suffix_ids for context in contexts)
    )


@torch.no_grad()
def _shared_prefix_scores(
    problem: AttributionProblem, prompts: Sequence[Ids]
) -> Float[np.ndarray, "prompt context target"]:
    """Compute `AttributionProblem.scores` in two runs, with key-value caches shared by all contexts.

    The first run has the text left of the slot and the prompts, the second the rest of each context. Prompts
    differ in length by at most one token: the last token of a longer one is run with the rest.
    """
    runner, contexts, targets = problem.runner, problem.branched.contexts, problem.targets
    depth, device, common = (
        targets.depth(runner.shape.n_layers),
        runner.device,
        min(len(prompt) for prompt in prompts),
    )
    heads = torch.tensor([[*contexts[0].prefix_ids, *prompt[:common]] for prompt in prompts], device=device)
    tails = [(*prompt[common:], *context.after_prompt) for prompt in prompts for context in contexts]
    _, kv = runner.run(runner.embed(heads), 0, depth, keep=True)
    assert kv is not None, "it was kept"
    owner = torch.arange(len(prompts), device=device).repeat_interleave(len(contexts))
    with runner.capture(targets.sites) as caught:
        last, _ = runner.run(
            runner.embed(pad_right(tails).to(device), offset=heads.shape[1]), 0, depth, kv.fork(owner)
        )
    decision = torch.tensor(
        [len(prompt) - common + len(c.suffix_ids) - 1 for prompt in prompts for c in contexts], device=device
    )
    stream, members = last if targets.needs_final else None, [*range(len(contexts))] * len(prompts)
    scored = targets.score(
        Readout.of(runner, caught, stream, decision, AnswerTable(contexts, device), members)
    )
    return problem.over_branches(
        rearrange(scored, "(prompt branch) target -> prompt branch target", prompt=len(prompts))
        .double()
        .cpu()
        .numpy()
    )
