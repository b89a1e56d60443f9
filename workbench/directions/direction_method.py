"""The class of direction methods and their registry: a method's kind of activations and fitting function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from workbench.registry import Registry

#: Function from activations x and persona scores y (log-odds, or +1 and -1; plus = shows the persona) to one
#: vector. Its sign is plus = more of the persona; its length is the distance between the two class means
#: along it, in units of the residual stream.
Fit = Callable[[Float[Tensor, "n d_model"], Float[Tensor, " n"]], Float[Tensor, " d_model"]]
#: How activations are labelled: by the model's own choice ("choice"; in "choice_within" each context's mean
#: state and score are subtracted), by a given answer, or by a given response.
Labels = Literal["choice", "choice_within", "answer", "response"]


@dataclass(frozen=True)
class DirectionMethod:
    """A method that fits a persona's direction to labelled activations.

    Attributes:
        name: Name in settings and tables.
        labels: What the rows must be labelled by. "choice": the model's own log-odds; "choice_within": the
            same, with each question's mean subtracted; "answer": +1 and -1 for the two answers to a question;
            "response": +1 and -1 for whole responses.
        fit: Function from activations and scores to the vector.
        says: One line, without a full stop, that says what is done.
        replicates: Number of bootstrap replicates for the interval of the direction's angle; 0 if fitting is
            too slow.
        default_place: Position among the methods of a scan that names none; None for a method that must be
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
    """Register a direction method under its name and return it."""
    return DIRECTION_METHODS.add(method.name, method, through=__file__)


def default_methods() -> tuple[str, ...]:
    """Return the names of the direction methods that a scan over layers tries if none are named."""
    return tuple(name for name, method in DIRECTION_METHODS.items() if method.default_place is not None)
