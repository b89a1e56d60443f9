"""What an estimator is, and what it gives: one interface for exact and approximate ways to blame a prompt's tokens."""

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

    values: what each prompt token adds to each target in each context, in the target's unit; plus = the token
    raises it. sampling_error: standard error of the mean over contexts that comes from drawing at random
    (None for exact arithmetic). missing: by target, how far the tokens' values, added up, fall short of the
    effect that they should add up to, as a mean over contexts (for estimators that promise completeness).
    """

    values: Float[np.ndarray, "context prompt_pos target"]
    sampling_error: Float[np.ndarray, "prompt_pos target"] | None = None
    missing: dict[str, float] = field(default_factory=dict)


class Estimator(Protocol):
    """A way to estimate each token's effect."""

    @property
    def name(self) -> str:
        """Name in tables and files."""
        ...

    def estimate(self, problem: AttributionProblem) -> EffectEstimate:
        """Effects of the problem's prompt tokens on its targets."""
        ...


#: Estimators by the names that study files use; each file registers its own class, which needs no argument.
ESTIMATORS: Registry[type[Estimator]] = Registry("estimator", "workbench.attribution")
