"""Calibrate an objective: mean and spread of its score, and residual norms, over neutral prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.answer_tokens import AnswerTable
from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import not_finite, pad_right, runner_for
from workbench.objectives.objective import Objective
from workbench.objectives.readout import Readout
from workbench.prompt_tokens import allowed_ids


@dataclass(frozen=True)
class ObjectiveScale:
    """Scale of an objective: the distribution of its score over neutral prompts (texts without a topic).

    The score of a prompt is its mean over contexts (questions).

    Attributes:
        mean: Mean of the prompts' scores.
        sd: Standard deviation of the prompts' scores.
        norm_limit: Residuals that are longer than this norm are shortened to it, so that a prompt cannot gain
            by making them long. It is 1.1 times the longest norm with neutral prompts.
    """

    mean: float = 0.0
    sd: float = 1.0
    norm_limit: float = float("inf")


#: Scale that leaves score and residuals unchanged.
UNSCALED = ObjectiveScale()


class ScaledObjective(Objective):
    """Base class of objectives that are scaled: the score is (raw score - mean) / standard deviation.

    Mean and standard deviation were measured over neutral prompts (`ObjectiveScale`).
    """

    scale: ObjectiveScale

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Compute the score before it is scaled, one number per row; plus = more of the persona."""
        raise NotImplementedError

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return (self.raw(readout) - self.scale.mean) / self.scale.sd

    def guarded(self, resid: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        """Return residuals of which none is longer than `scale.norm_limit`: longer ones are shortened to it."""
        if self.scale.norm_limit == float("inf"):
            return resid
        return resid * (self.scale.norm_limit / resid.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(
            max=1.0
        )

    @override
    def calibrate(
        self,
        model: Any,
        contexts: Contexts,
        n: int = 24,
        length: int = 8,
        seed: int = 0,
        batch_tokens: int = 8192,
    ) -> Objective:
        runner = runner_for(model)
        neutral = neutral_prompts(runner, contexts, n, length, seed)
        plain = replace(self, scale=ObjectiveScale())  # type: ignore[type-var]
        longest, means = 0.0, torch.zeros(len(neutral), dtype=torch.float64)
        rows = contexts.branched if self.needs_final else contexts
        for number, prompt in enumerate(neutral):
            readouts = [
                read(runner, plain, part, prompt) for part in _batches(rows, len(prompt), batch_tokens)
            ]
            means[number] = float(torch.cat([plain.raw(readout) for readout in readouts]).mean())
            norms = [
                float(readout.resid[site].norm(dim=-1).max()) for readout in readouts for site in self.sites
            ]
            longest = max(longest, *norms) if norms else longest
        limit = 1.1 * longest if self.sites else float("inf")
        sd = float(means.std())
        if not sd > 1e-9:
            raise UserError(
                "the objective does not move over neutral prompts: nothing to scale it by (latents that never fire?)"
            )
        return replace(self, scale=ObjectiveScale(float(means.mean()), sd, limit))  # type: ignore[type-var]


def _batches(contexts: Contexts, length: int, batch_tokens: int) -> list[Contexts]:
    """Split contexts into parts of at most `batch_tokens` tokens with a prompt, padding included; at least one each.

    The branches of a context (token sequences that score its answers) stay together.
    """
    longest = max(len(context.sequence(())) for context in contexts) + length
    together = contexts.items[0].n_branches if contexts.items[0].branch is not None else 1
    size = max(1, batch_tokens // (longest * together)) * together
    return [replace(contexts, items=contexts.items[i : i + size]) for i in range(0, len(contexts), size)]


def neutral_prompts(
    model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0
) -> list[tuple[int, ...]]:
    """Make prompts without a topic, to calibrate the scale of an objective.

    One half consists of random tokens. The other half is text that the model writes at the prompt's place in
    the chat, sampled at temperature 1. Only tokens that a prompt may contain are used (`allowed_ids`).

    Args:
        model: A loaded model or its runner.
        contexts: Questions in which the prompts are put.
        n: Number of prompts.
        length: Number of tokens of each.
        seed: Seed of the sampling.

    Returns:
        n prompts as token ids.

    Example:
        >>> [len(ids) for ids in wb.neutral_prompts(model, contexts, n=2, length=5)]
        [5, 5]
    """
    runner = runner_for(model)
    generator = torch.Generator().manual_seed(seed)
    allowed = allowed_ids(runner)
    choices = torch.nonzero(allowed)[:, 0]
    drawn = choices[torch.randint(len(choices), (n - n // 2, length), generator=generator)]
    prompts = [tuple(row) for row in drawn.tolist()]
    if n // 2:
        prefix = torch.tensor([contexts[0].prefix_ids]).expand(n // 2, -1)
        text = runner.generate(prefix, length, temperature=1.0, generator=generator, banned=~allowed)
        prompts += [tuple(row) for row in text.tolist()]
    return prompts


@torch.no_grad()
def read(model: Any, objective: Objective, contexts: Contexts, prompt_ids: Sequence[int] | None) -> Readout:
    """Run the model on every context with one prompt, and return the values that an objective reads.

    The result has one row per context (a question in the chat template), or two if both answers have several
    tokens and are scored in separate sequences.

    Args:
        model: A loaded model or its runner.
        objective: The objective, which says what to read.
        contexts: The questions.
        prompt_ids: Token ids of the prompt. None: no prompt.

    Raises:
        UserError: A value that is read is not a finite number.
    """
    runner = runner_for(model)
    branched = contexts.branched if objective.needs_final else contexts
    rows = [c.sequence(prompt_ids) for c in branched]
    decision = torch.tensor([len(c.ids(prompt_ids)) - 1 for c in branched], device=runner.device)
    with runner.capture(objective.sites) as caught:
        resid, _ = runner.run(
            runner.embed(pad_right(rows).to(runner.device)), 0, objective.depth(runner.shape.n_layers)
        )
    table = AnswerTable(branched, runner.device)
    stream = resid if objective.needs_final else None
    found = Readout.of(runner, caught, stream, decision, table, range(len(rows)))
    values = [*found.resid.values(), *([] if found.final is None else [found.final])]
    bad = next((int((~v.isfinite()).any(-1).nonzero()[0, 0]) for v in values if not v.isfinite().all()), None)
    if bad is not None:
        raise UserError(
            f"the question {branched[bad].item.question[:60]!r} gives values that are no finite numbers: {not_finite(runner, rows[bad])}"
        )
    return found
