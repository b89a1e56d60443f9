"""Dose-response curves of a prompt and of steering along the same direction at the same place.

1. The prompt's doses are its first k tokens, k = 1 to all. Each dose changes the direction's projection at
   the decision token (the last token before the answer), and the answer.
2. Steering's doses: on the bare question, the direction is added at the decision token, so that the
   projection changes by a fraction of the whole prompt's change.
3. If the prompt works through the direction alone, both curves of the answer coincide.
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
    """One point of the dose-response curve of a prompt or of steering.

    Attributes:
        kind: "prompt" or "steering".
        amount: For a prompt, the number of its first tokens that are used. For steering, the change of the
            projection as a fraction of the whole prompt's change.
        moved: Mean change of the direction's projection at the decision token (the last token before the
            answer), in units of the residual stream.
        answer: Change of the answer's log-odds against the bare question, with its interval.
    """

    kind: Literal["prompt", "steering"]
    amount: float
    moved: float
    answer: Interval

    def to_entry(self) -> DoseEntry:
        """Convert the point to an entry of `dose` in attribution.json."""
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
    """Measure how the answer changes with more of the prompt, and with stronger steering along a direction.

    The two dose-response curves can be compared, because each point also has the change of the projection on
    the direction. The cost per question is one forward pass for each prompt token and each steering dose.

    Args:
        problem: Model, prompt and contexts.
        direction: The direction, as an attribution target.
        shares: Steering doses, as fractions of the whole prompt's change of the projection.

    Returns:
        The points of the prompt's curve, then those of steering's curve.
    """
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
    """Compare in one sentence how the prompt and equally strong steering change the answer.

    Steering is equally strong if it moves the projection on the direction as much as the whole prompt does.

    Args:
        doses: Points of both dose-response curves; without any, the sentence is empty.
    """
    whole = [dose for dose in doses if dose.kind == "prompt"][-1:]
    same = [dose for dose in doses if dose.kind == "steering" and dose.amount == 1.0]
    if not whole or not same:
        return ""
    return (
        f"The prompt moves the reading by {whole[0].moved:+.3g} and the answer by {whole[0].answer} in log-odds; adding the direction to the "
        f"bare question until its reading has moved as far changes the answer by {same[0].answer}."
    )
