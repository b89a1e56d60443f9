"""What all conditions share: a name, a kind, a prompt if it has one, its cost, and answers on any contexts.

A condition is a frozen value. Whatever is fitted or chosen (a prompt among several, a coefficient) is fitted
or chosen by an explicit method that returns a new value; `answer` changes nothing and looks at nothing but
the contexts it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.budget import Cost
from workbench.contexts import Contexts, Slot, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers
from workbench.models import runner_for
from workbench.personas import Sign, Split


class Condition(ABC):
    """One thing that is compared.

    kind: a word of `CONDITION_KINDS`. method: what was done, in words. prompt: its text, None where it has
    none. fluency: mean cross-entropy of the prompt's tokens in nats, where known. search_rate,
    selection_rate: the rates on the questions that it was fitted to and on those that it was chosen by, where
    it was: next to the test rate they show the optimism of choosing. cost: of finding it.
    """

    name: str
    kind: str
    method: str
    prompt: str | None = None
    cross_entropy: float | None = None
    search_rate: float | None = None
    selection_rate: float | None = None
    cost: Cost = Cost()

    @abstractmethod
    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Log-odds of the matching answer in every context under this condition."""


class SpendingMeter:
    """Cost of a `spending` block: so far while it runs, in total once it has ended."""

    def __init__(self, read: Callable[[], Cost], model_call: float = 1.0) -> None:
        self._read, self._before, self._model_call = read, read(), model_call
        self._all: Cost | None = None

    @property
    def cost(self) -> Cost:
        """Tokens, operations, model calls and seconds since the block began."""
        if self._all is not None:
            return self._all
        spent = (
            self._read() - self._before
        )  # of whole numbers; model calls are not, so they are divided only now
        return replace(spent, model_calls=(spent.forward + spent.backward) / self._model_call)

    def close(self) -> None:
        """The cost stays as it is now."""
        self._all = self.cost


@contextmanager
def spending(model: Any, contexts: Contexts, *helpers: Any) -> Iterator[SpendingMeter]:
    """Measures what the block costs.

    A model call is one full-depth run of a context of mean length. helpers: other models that run in it,
    whose operations count too (their tokens do not: they are not this model's).
    """
    runner = runner_for(model)
    others = {id(r): r for r in map(runner_for, helpers) if r is not runner}.values()
    full = float(np.mean([len(c.bare_ids) for c in contexts])) * runner.shape.n_layers
    receipt = SpendingMeter(
        lambda: runner.meter.cost(full) + Cost(flops=sum(r.meter.flops for r in others)), full
    )
    yield receipt
    receipt.close()


def as_contexts(model: Any, data: Split | Contexts, slot: Slot = "system") -> Contexts:
    """Contexts as they are, or those of a split (both option orders)."""
    return data if isinstance(data, Contexts) else make_contexts(model, data, slot)


def signed(sign: Sign) -> int:
    """+1 for "induce", -1 for "suppress"; UserError for anything else."""
    if sign not in ("induce", "suppress"):
        raise UserError(f"sign is 'suppress' or 'induce', found {sign!r}")
    return 1 if sign == "induce" else -1
