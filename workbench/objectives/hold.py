"""Objective that keeps the score of another objective at a given value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Site
from workbench.objectives.objective import Objective
from workbench.objectives.projection import projection
from workbench.objectives.readout import Readout


@dataclass(frozen=True, repr=False)
class HoldObjective(Objective):
    """Objective: minus the squared distance of another objective's score from a value; 0 is best.

    Attributes:
        inner: The objective whose score is held.
        value: The value at which it is held, in the unit of `inner`.

    Example:
        >>> wb.HoldObjective(wb.answer_log_odds(), value=0.0).value
        0.0
    """

    inner: Objective
    value: float

    @property
    @override
    def sites(self) -> tuple[Site, ...]:
        return self.inner.sites

    @property
    @override
    def needs_final(self) -> bool:
        return self.inner.needs_final

    @override
    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        if readout.whole is not None and readout.whole.table.n_branches > 1 and self.inner.needs_final:
            raise UserError(
                "an answer of several tokens cannot be held at a value: hold a direction or latents, or use one-token answers"
            )
        return -((self.inner.score(readout) - self.value) ** 2)

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
        return replace(self, inner=self.inner.calibrate(model, contexts, n, length, seed, batch_tokens))


def hold_direction(direction: Any) -> HoldObjective:
    """Return an objective that keeps the projection of the residual stream on a direction at its usual value.

    Add it to another objective to leave a second persona unchanged. The usual value is the mean over neutral
    prompts (texts without a topic). The score is minus the squared distance from it in standard deviations: 0
    is best and -1 is one standard deviation away.

    Args:
        direction: A `Direction`, or any object with `vector` and `site`.

    Returns:
        An objective; its `calibrate(model, contexts)` measures the mean and the standard deviation.

    Example:
        >>> goal = -wb.answer_log_odds() + wb.hold_direction(direction)
    """
    return HoldObjective(projection(direction), 0.0)
