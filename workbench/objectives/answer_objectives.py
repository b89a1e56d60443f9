"""Objectives on the answers: the log-odds of the two answers, and the log-probability of one of them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.answer_tokens import LOG_ODDS, MATCHING, OTHER
from workbench.objectives.objective import Objective
from workbench.objectives.objective_scale import UNSCALED, ObjectiveScale, ScaledObjective
from workbench.objectives.readout import Readout


@dataclass(frozen=True, repr=False)
class AnswerLogOddsObjective(ScaledObjective):
    """Objective: log-odds (nats) of the whole matching answer, which shows the persona, against the other.

    They are the log-odds that `answer` reports.
    """

    scale: ObjectiveScale = UNSCALED

    @property
    @override
    def needs_final(self) -> bool:
        return True

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Return for each row the score of the persona's answer minus that of the other answer, in nats."""
        return readout.answer_scores(LOG_ODDS)


def answer_log_odds() -> AnswerLogOddsObjective:
    """Return the objective that maximises the log-odds of the persona's answer.

    It optimises the behaviour itself. Compared with objectives on activations, it is the control that shows
    what reading the model's activations contributes.

    Returns:
        An objective whose score is the log-odds (nats) of the matching answer, which shows the persona.

    Example:
        >>> goal = -wb.answer_log_odds()      # lowers the persona
    """
    return AnswerLogOddsObjective()


@dataclass(frozen=True, repr=False)
class AnswerLogProbObjective(Objective):
    """Objective: log-probability (nats) of one whole answer, as in GCG.

    Attributes:
        side: 0 for the matching answer, which shows the persona; 1 for the other answer.

    Example:
        >>> found = wb.search(model, wb.AnswerLogProbObjective(), contexts, wb.GCG(length=4, children=8), wb.Budget(steps=1))
        >>> len(found.candidates) > 0
        True
    """

    side: int = 0

    @property
    @override
    def needs_final(self) -> bool:
        return True

    @property
    @override
    def sign(self) -> int:
        return 1 if self.side == 0 else -1

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        return readout.answer_scores(MATCHING if self.side == 0 else OTHER)
