"""Limits for the cost of a computation, and counters of what it has cost.

Cost is counted in *token-layers* (tokens run x blocks run; forward and backward passes are counted
separately), in floating point operations and in seconds. A *model call* is one full-depth forward pass of one
sequence, or the same number of token-layers.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields

from pydantic import BaseModel, ConfigDict, model_validator

#: Units in which comparison.json and the tables of runs give the cost of a condition.
COSTS = ("model_calls", "token_layers", "flops", "seconds")


class Budget(BaseModel):
    """Limits of a search; the search ends when the first one is reached. At least one must be given.

    Attributes:
        seconds: Wall-clock time in seconds.
        model_calls: Forward passes through all blocks of one sequence (a question with a prompt). Partial
            passes count as their fraction of the token-layers (tokens x blocks) of a full one.
        flops: Floating point operations of the model's blocks and unembedding.
        steps: Steps of the search.

    Example:
        >>> wb.Budget(steps=20, seconds=60).steps
        20
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seconds: float | None = None
    """Wall-clock seconds; the result then depends on the machine's load."""
    model_calls: float | None = None
    """Full-depth forward passes of one sequence, or their equal in token-layers."""
    flops: float | None = None
    """Floating point operations."""
    steps: int | None = None
    """Steps of the method."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Budget:
        limits = [self.seconds, self.model_calls, self.flops, self.steps]
        if all(limit is None for limit in limits):
            raise ValueError("a budget needs at least one of seconds, model_calls, flops, steps")
        if any(limit is not None and not limit > 0 for limit in limits):  # NaN is not above 0, either
            raise ValueError("every limit of a budget must be above 0")
        return self

    def used(self, cost: Cost, steps: int) -> float:
        """Return how much of the budget is used: the largest of the used fractions of its limits.

        At 1 or more the search must stop.

        Args:
            cost: Cost of the search so far.
            steps: Number of steps so far.
        """
        pairs = [
            (cost.seconds, self.seconds),
            (cost.model_calls, self.model_calls),
            (cost.flops, self.flops),
            (steps, self.steps),
        ]
        return max(spent / limit for spent, limit in pairs if limit is not None)


@dataclass(frozen=True)
class Cost:
    """Cost of a computation; two costs can be added and subtracted.

    Attributes:
        forward: Token-layers run forward: one token through one block is 1.
        backward: Token-layers run backward.
        unembedded: Number of positions whose logits were computed.
        flops: Floating point operations.
        model_calls: Token-layers, divided by those of one pass through all blocks over one question with its
            prompt.
        seconds: Wall-clock time in seconds.
        repeated: Token-layers that a resumed search ran a second time (the text before the prompt of each
            question). The other fields do not contain them.

    Example:
        >>> (wb.Cost(forward=10, seconds=1) + wb.Cost(forward=5)).forward
        15
    """

    forward: float = 0.0
    backward: float = 0.0
    unembedded: float = 0.0
    flops: float = 0.0
    model_calls: float = 0.0
    seconds: float = 0.0
    repeated: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Cost)))

    def to_json(self) -> dict[str, float]:
        """Return the entry `cost` of comparison.json as a dictionary.

        Returns:
            `token_layers` (forward + backward), `token_layers_backward`, `flops`, `model_calls` and
            `seconds`; for a resumed search also `token_layers_repeated`.
        """
        entry = asdict(self)
        layers = {
            "token_layers": entry["forward"] + entry["backward"],
            "token_layers_backward": entry["backward"],
        }
        rest = {"flops": self.flops, "model_calls": self.model_calls, "seconds": self.seconds}
        return layers | rest | ({"token_layers_repeated": self.repeated} if self.repeated else {})


class Meter:
    """Counters of a model's work since the meter was made: token-layers, unembedded positions and FLOPs.

    Each model's runner has one meter; `cost` returns its counts as a `Cost`.
    """

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0
        self.unembedded = 0
        self.flops = 0
        self._began = time.perf_counter()

    def cost(self, full_sequence: float) -> Cost:
        """Return the cost of everything counted since the meter was made.

        Args:
            full_sequence: Token-layers that count as one model call: number of tokens of one sequence x
                number of blocks.
        """
        seconds = time.perf_counter() - self._began
        calls = (self.forward + self.backward) / full_sequence
        return Cost(self.forward, self.backward, self.unembedded, self.flops, calls, seconds)
