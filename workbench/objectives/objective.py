"""`Objective`, a score to be maximised, and weighted sums of objectives."""

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
    """A score to be maximised. Objectives add, and are multiplied by numbers; `-goal` lowers what `goal` raises.

    Example:
        >>> goal = -wb.answer_log_odds() + 0.5 * wb.RepetitionPenalty()
        >>> isinstance(goal, wb.Objective)
        True
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where activations are read."""
        return ()

    @property
    def needs_final(self) -> bool:
        """True if the logits are needed: the model is then run to its end."""
        return False

    @property
    def sign(self) -> int:
        """+1 if a higher score means more of the persona, -1 if less."""
        return 1

    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        """One float32 score a row; differentiable."""
        return readout.answers.new_zeros(len(readout.answers), dtype=torch.float32)

    def prompt_score(self, ids: Int[Tensor, "candidate prompt_pos"]) -> Float[Tensor, " candidate"]:
        """Terms that depend on the prompt's ids alone."""
        return torch.zeros(len(ids), device=ids.device)

    def calibrate(
        self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0
    ) -> Objective:
        """This objective with its scale measured over n neutral prompts of `length` tokens; itself where it has no scale."""
        return self

    def depth(self, n_layers: int) -> int:
        """How many blocks must be run."""
        return n_layers if self.needs_final else max((site.layer + 1 for site in self.sites), default=0)

    def facts(self) -> tuple[str, dict[str, object]]:
        """What is maximised, in words."""
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
    """A weighted sum of objectives."""

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
        self, model: Any, contexts: Contexts, n: int = 24, length: int = 8, seed: int = 0
    ) -> Objective:
        return CombinedObjective(
            tuple((w, term.calibrate(model, contexts, n, length, seed)) for w, term in self.terms)
        )


def terms_of(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    """The objectives that a sum is made of, with their weights; the objective itself with weight 1."""
    return objective.terms if isinstance(objective, CombinedObjective) else ((1.0, objective),)
