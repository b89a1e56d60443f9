"""Objectives on the behaviour itself: log-odds of the answers, and log-probability of one of them."""

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
    """Score of the matching answer minus that of the other one, whole answers: the log-odds that `answer` reports, in nats."""

    scale: ObjectiveScale = UNSCALED

    @property
    @override
    def needs_final(self) -> bool:
        return True

    def raw(self, readout: Readout) -> Float[Tensor, " batch"]:
        """Matching minus not matching answer, nats."""
        return readout.answer_scores(LOG_ODDS)


def answer_log_odds() -> AnswerLogOddsObjective:
    """The behaviour itself as objective: the control that says what looking inside the model buys.

    Returns:
        An objective whose score is the log-odds (nats) of the matching answer.

    Example:
        >>> goal = -wb.answer_log_odds()      # lowers the persona
    """
    return AnswerLogOddsObjective()


@dataclass(frozen=True, repr=False)
class AnswerLogProbObjective(Objective):
    """Log-probability (nats) of one whole answer: the objective of GCG.

    Attributes:
        side: 0: the matching answer; 1: the not matching one.

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
