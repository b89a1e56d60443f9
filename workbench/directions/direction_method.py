"""What a direction method is: which activations it is fitted to, and the function that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from workbench.registry import Registry

#: From activations x and persona scores y (plus = shows the persona; log-odds, or +1 and -1) to one vector.
#: Its sign is plus = more of the persona; its length is the distance between the two class means along it, in
#: units of the residual stream.
Fit = Callable[[Float[Tensor, "n d_model"], Float[Tensor, " n"]], Float[Tensor, " d_model"]]
#: How activations are labelled. `choice_within`: own choices, each context's mean state and score subtracted.
Labels = Literal["choice", "choice_within", "answer", "response"]


@dataclass(frozen=True)
class DirectionMethod:
    """A way to make a direction.

    Attributes:
        name: The name in settings and tables.
        labels: Which data it is fitted to.
        fit: The fit.
        says: What is done, in one line without a full stop.
        replicates: Bootstrap replicates of its angle that a sweep can afford.
        default_place: Place among the methods of a sweep that names none; None for a method that must be
            named.
    """

    name: str
    labels: Labels
    fit: Fit
    says: str
    replicates: int = 50
    default_place: int | None = None


DIRECTION_METHODS: Registry[DirectionMethod] = Registry(
    "direction method",
    "workbench.directions.methods",
    lambda method: 100 if method.default_place is None else method.default_place,
)


def register_direction_method(method: DirectionMethod) -> DirectionMethod:
    """Registers a method under its name."""
    return DIRECTION_METHODS.add(method.name, method, through=__file__)


def default_methods() -> tuple[str, ...]:
    """What a sweep tries unless told otherwise."""
    return tuple(name for name, method in DIRECTION_METHODS.items() if method.default_place is not None)
