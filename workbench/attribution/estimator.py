"""Interface of all estimators of token effects, exact and approximate, and the registry of their names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float

from workbench.attribution.attribution_problem import AttributionProblem
from workbench.registry import Registry


@dataclass(frozen=True)
class EffectEstimate:
    """Estimated effects of the prompt's tokens.

    Attributes:
        values: Effect of each prompt token on each target in each context, in the target's unit; positive
            means that the token raises the target.
        sampling_error: Standard error of the mean over contexts that comes from random sampling; None for
            estimators that do not sample.
        missing: By target, the total effect minus the sum of the tokens' effects, as a mean over contexts.
            Only for estimators whose effects should add up to a total (completeness).
    """

    values: Float[np.ndarray, "context prompt_pos target"]
    sampling_error: Float[np.ndarray, "prompt_pos target"] | None = None
    missing: dict[str, float] = field(default_factory=dict)


class Estimator(Protocol):
    """An algorithm that estimates the effect of each prompt token on each target."""

    @property
    def name(self) -> str:
        """Name of the estimator in tables and files."""
        ...

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Estimate the effect of each prompt token on each target.

        Args:
            problem: Model, prompt, questions, and the targets (quantities that the tokens may change).
        """
        ...


#: Estimators by their names in study files. Each module registers its class, which needs no arguments.
ESTIMATORS: Registry[type[Estimator]] = Registry("estimator", "workbench.attribution")
