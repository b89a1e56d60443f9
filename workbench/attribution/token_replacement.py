"""Replacement: a token's effect relative to other tokens in its place.

1. For each position draw n other tokens. "fluent" draws from the model's own distribution after the text
   before the position, without the token itself. "neutral" draws uniformly from all tokens that a prompt may
   contain.
2. Score the prompt with each drawn token in place.
3. Effect = score of the prompt - mean score over the drawn tokens. Its sampling error is the standard
   deviation between drawn tokens (of means over contexts) / sqrt(n).

Deletion shortens the prompt, which alone may change the answer; replacement keeps its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.estimator import ESTIMATORS, EffectEstimate
from workbench.errors import UserError
from workbench.prompt_tokens import allowed_ids


@ESTIMATORS.register("replacement")
@dataclass(frozen=True)
class TokenReplacement:
    """Measures each prompt token's effect relative to random substitute tokens.

    Attributes:
        draws: Number of substitutes per position.
        source: "fluent": drawn from the model's next-token distribution. "neutral": drawn uniformly from all
            tokens that a prompt may contain.
        temperature: Temperature of the model's distribution, for "fluent" only.
        name: Name of the estimator in tables and files.
    """

    draws: int = 8
    source: Literal["fluent", "neutral"] = "fluent"
    temperature: float = 1.0
    name: str = "replacement"

    def __post_init__(self) -> None:
        if self.draws < 1 or self.temperature <= 0 or self.source not in ("fluent", "neutral"):
            raise UserError(
                f"replacement needs draws >= 1, a temperature above 0 and source 'fluent' or 'neutral', found {self!r}"
            )

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Measure the mean change of each target when each prompt token is replaced by random substitutes.

        The cost is `draws` forward passes per token and question.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        drawn = self._draw(problem)
        prompts = [_swap(problem.prompt, i, int(token)) for i, tokens in enumerate(drawn) for token in tokens]
        scored = rearrange(
            problem.scores(prompts),
            "(prompt_pos draw) context target -> prompt_pos draw context target",
            draw=self.draws,
        )
        values = np.moveaxis(problem.with_prompt[None] - scored.mean(axis=1), 0, 1)
        if self.draws == 1:
            return EffectEstimate(values)
        return EffectEstimate(values, scored.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(self.draws))

    def _draw(self, problem: AttributionProblem) -> Int[Tensor, "prompt_pos draw"]:
        generator = torch.Generator().manual_seed(problem.seed)
        weights = allowed_ids(problem.runner).cpu().float()[None].repeat(len(problem.prompt), 1)
        if self.source == "fluent":
            weights = weights * self._fluent(problem)
        weights[torch.arange(len(problem.prompt)), torch.tensor(problem.prompt)] = 0
        if not bool((weights.sum(dim=-1) > 0).all()):
            raise UserError(
                "no other token may be put at one of the prompt's positions: nothing to replace it by"
            )
        return torch.multinomial(weights, self.draws, replacement=True, generator=generator)

    @torch.no_grad()
    def _fluent(self, problem: AttributionProblem) -> Tensor:
        """Return the next-token probabilities at each prompt position, after the first context's prefix.

        Uniform at the first position if there is no text before it.
        """
        runner, left = problem.runner, problem.contexts[0].prefix_ids
        ids = torch.tensor([[*left, *problem.prompt]], device=runner.device)
        resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        places = [len(left) + i - 1 for i in range(len(problem.prompt))]
        logits = runner.logits(resid[0, [max(place, 0) for place in places]]).cpu()
        if places[0] < 0:
            logits[0] = 0
        return (logits / self.temperature).softmax(dim=-1) + 1e-12


def _swap(prompt: tuple[int, ...], position: int, token: int) -> tuple[int, ...]:
    return (*prompt[:position], token, *prompt[position + 1 :])
