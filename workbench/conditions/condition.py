"""The base class of all conditions, and how the cost of finding one is measured.

A condition has a name, a kind, a prompt (if any), a cost, and answers on any contexts. It is a frozen value:
an explicit method (`tune`, `fit`, `choose`, `run`) fits or chooses a prompt or a coefficient and returns a
new condition, while `answer` changes nothing and depends on the given contexts alone.
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
    """Base class of everything that a comparison compares: prompts, interventions and reference points.

    A rate is the fraction of questions that the model answers as the persona. A better rate on the search or
    selection questions than on the test questions shows overfitting.

    Attributes:
        name: Name in tables and figures.
        kind: A key of `CONDITION_KINDS`, such as "resga".
        method: How it was made, in words.
        prompt: Text of the prompt, or None for a condition without one.
        cross_entropy: Mean cross-entropy of the prompt's tokens in nats per token, if known (lower is more
            fluent).
        search_rate: Rate on the questions that the condition was fitted to, if any.
        selection_rate: Rate on the questions by which it was chosen, if any.
        cost: What finding it cost.
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
        """Return the log-odds of the matching answer (the one that shows the persona) in every context.

        Args:
            model: A loaded model or its runner.
            contexts: Questions to answer under this condition.

        Returns:
            The answers, plus = more of the persona.
        """


class SpendingMeter:
    """Meter of the computation inside a `with spending(...)` block: the cost so far or in total."""

    def __init__(self, read: Callable[[], Cost], model_call: float = 1.0) -> None:
        self._read, self._before, self._model_call = read, read(), model_call
        self._all: Cost | None = None

    @property
    def cost(self) -> Cost:
        """Tokens, FLOPs, model calls and seconds since the `with spending(...)` block began."""
        if self._all is not None:
            return self._all
        spent = (
            self._read() - self._before
        )  # exact: all counts are integers until model calls are computed below
        return replace(spent, model_calls=(spent.forward + spent.backward) / self._model_call)

    def close(self) -> None:
        """Stop the meter: fix the cost at its present value, so that later runs of the model do not count."""
        self._all = self.cost


@contextmanager
def spending(model: Any, contexts: Contexts, *helpers: Any) -> Iterator[SpendingMeter]:
    """Measure what the code inside the `with` block costs.

    Args:
        model: The model whose tokens, operations and calls are counted.
        contexts: Questions that define one model call, which is a run of all layers on a question of their
            mean length.
        *helpers: Other models that run inside the block. Their operations (FLOPs) count too, their tokens do
            not.

    Yields:
        A meter whose `cost` is the cost so far, and the total after the block.
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
    """Return the questions of a split as tokenized contexts; contexts are returned unchanged.

    Args:
        model: A loaded model or its runner.
        data: A split of a persona's questions, or contexts made from one.
        slot: The place in the chat where a prompt goes, such as the system message; used for a split only.

    Returns:
        The contexts. If answers are letters, each question occurs twice, once for each order of the two
        options.
    """
    return data if isinstance(data, Contexts) else make_contexts(model, data, slot)


def signed(sign: Sign) -> int:
    """Return +1 for "induce" and -1 for "suppress".

    Raises:
        UserError: Any other sign.
    """
    if sign not in ("induce", "suppress"):
        raise UserError(f"sign is 'suppress' or 'induce', found {sign!r}")
    return 1 if sign == "induce" else -1
