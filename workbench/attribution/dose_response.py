"""Does the prompt act as steering does? Dose and response of both, on the same direction at the same place.

1. The prompt's doses: its first k tokens, k = 1 to all. Each moves the direction's reading at the decision
   token and the answer.
2. Steering's doses: the bare question, the direction added at the decision token so that its reading moves by
   a fraction of what the whole prompt does to it.
3. If the prompt works through the direction alone, both answer curves coincide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.attribution.attribution_targets import ANSWER, AttributionTarget, AttributionTargets
from workbench.attribution.mediation import as_mediator
from workbench.interventions import steer
from workbench.objectives import answer_log_odds
from workbench.schema import DoseEntry
from workbench.statistics import Interval, cluster_interval

SHARES = (0.25, 0.5, 0.75, 1.0, 1.5)


@dataclass(frozen=True)
class DoseResponse:
    """One point of a dose-response curve.

    amount: tokens of the prompt, or the fraction of the whole prompt's change of reading that is added.
    moved: mean change of the reading at the decision token, in units of the residual stream. answer: change
    of the answer's log-odds against the bare question.
    """

    kind: Literal["prompt", "steering"]
    amount: float
    moved: float
    answer: Interval

    def to_entry(self) -> DoseEntry:
        """One entry of attribution.json's `dose`."""
        low, high = self.answer.to_json()
        return DoseEntry(
            kind=self.kind,
            amount=self.amount,
            moved=self.moved,
            answer=self.answer.estimate,
            low=low,
            high=high,
        )


def dose_response(
    problem: AttributionProblem, direction: AttributionTarget, shares: tuple[float, ...] = SHARES
) -> tuple[DoseResponse, ...]:
    """Both curves. direction: a target of kind "direction". One forward pass a token and share and context."""
    both = replace(
        problem, targets=AttributionTargets((AttributionTarget(ANSWER, answer_log_odds()), direction))
    )
    answer = replace(problem, targets=AttributionTargets(both.targets.items[:1]))
    prefixes = [problem.prompt[:k] for k in range(1, len(problem.prompt) + 1)]
    changes = both.scores(prefixes) - both.without_prompt
    doses = [
        DoseResponse(
            "prompt", k + 1, float(c[:, 1].mean()), cluster_interval(c[:, 0], problem.contexts.groups)
        )
        for k, c in enumerate(changes)
    ]
    whole, axis = doses[-1].moved, as_mediator(direction.name, direction.objective)
    for share in shares:
        with steer(problem.runner, axis, share * whole, "decision"):  # type: ignore[arg-type]
            steered = answer.scores([None])[0]
        effect = cluster_interval(
            np.asarray(steered - both.without_prompt[:, :1])[:, 0], problem.contexts.groups
        )
        doses.append(DoseResponse("steering", share, share * whole, effect))
    return tuple(doses)


def dose_verdict(doses: tuple[DoseResponse, ...]) -> str:
    """What steering by as much as the prompt moves the reading does to the answer, next to what the prompt does. Empty without doses."""
    whole = [dose for dose in doses if dose.kind == "prompt"][-1:]
    same = [dose for dose in doses if dose.kind == "steering" and dose.amount == 1.0]
    if not whole or not same:
        return ""
    return (
        f"The prompt moves the reading by {whole[0].moved:+.3g} and the answer by {whole[0].answer} in log-odds; adding the direction to the "
        f"bare question until its reading has moved as far changes the answer by {same[0].answer}."
    )
