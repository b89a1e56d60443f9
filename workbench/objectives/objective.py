"""`Objective`, a score that a search maximises, and weighted sums of objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from workbench.contexts import Contexts
from workbench.html_text import ShowsFacts
from workbench.models import Site
from workbench.objective_words import describe, objective_words
from workbench.objectives.readout import Readout


class Objective(ShowsFacts):
    """A score that a search maximises. Objectives can be added and multiplied by numbers; `-goal` minimises.

    Example:
        >>> goal = -wb.answer_log_odds() + 0.5 * wb.RepetitionPenalty()
        >>> isinstance(goal, wb.Objective)
        True
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites in the model whose activations the objective reads."""
        return ()

    @property
    def needs_final(self) -> bool:
        """Whether the objective needs logits, so that the model must be run to its last block."""
        return False

    @property
    def sign(self) -> int:
        """Relation of the score to the persona: +1 if a higher score means more of the persona, -1 if less."""
        return 1

    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Compute the objective's score from the model's activations: one float32 number per row.

        The score is differentiable.

        Args:
            readout: What was read from one run of the model: the activations at the last token before the
                answer of each context, and the ids of its two answers.
        """
        return readout.answers.new_zeros(len(readout.answers), dtype=torch.float32)

    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        """Compute the part of the score that depends only on the prompts' token ids; 0 by default.

        Args:
            ids: Token ids of each candidate prompt.
        """
        return torch.zeros(len(ids), device=ids.device)

    def calibrate(
        self,
        model: Any,
        contexts: Contexts,
        n: int = 24,
        length: int = 8,
        seed: int = 0,
        batch_tokens: int = 8192,
    ) -> Objective:
        """Return the objective with its score in standard deviations over neutral prompts.

        Neutral prompts are texts without a topic (`neutral_prompts`). Objectives without a scale are returned
        unchanged.

        Args:
            model: A loaded model or its runner.
            contexts: Questions in which the neutral prompts are put.
            n: Number of neutral prompts.
            length: Number of tokens of each.
            seed: Seed of the neutral prompts.
            batch_tokens: Most tokens in one batch, padding included.
        """
        return self

    def depth(self, n_layers: int) -> int:
        """Return how many blocks of the model must be run to compute the score.

        Args:
            n_layers: Number of blocks of the model.
        """
        return n_layers if self.needs_final else max((site.layer + 1 for site in self.sites), default=0)

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return what a notebook shows: the objective in words and the sites that it reads."""
        words = objective_words(describe(self))
        return f"{type(self).__name__}: {words}", {
            "read at": ", ".join(site.name for site in self.sites)
        } if self.sites else {}

    def __add__(self, other: Objective) -> Objective:
        return CombinedObjective((*terms_of(self), *terms_of(other)))

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __mul__(self, weight: float) -> Objective:
        return CombinedObjective(tuple((weight * w, term) for w, term in terms_of(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0


@dataclass(frozen=True, repr=False)
class CombinedObjective(Objective):
    """Objective: weighted sum of other objectives.

    Attributes:
        terms: Pairs of weight and objective.
    """

    terms: tuple[tuple[float, Objective], ...]

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(site for _, term in self.terms for site in term.sites))

    @property
    @override
    def needs_final(self) -> bool:
        return any(term.needs_final for _, term in self.terms)

    @property
    @override
    def sign(self) -> int:
        weight, term = self.terms[0]
        return term.sign if weight >= 0 else -term.sign

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return torch.stack([weight * term.score(readout) for weight, term in self.terms]).sum(0)

    @override
    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        return torch.stack([weight * term.prompt_score(ids) for weight, term in self.terms]).sum(0)

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
        return CombinedObjective(
            tuple(
                (w, term.calibrate(model, contexts, n, length, seed, batch_tokens)) for w, term in self.terms
            )
        )


def terms_of(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    """Split an objective into its terms as (weight, objective); one that is no sum is one term of weight 1."""
    return objective.terms if isinstance(objective, CombinedObjective) else ((1.0, objective),)
