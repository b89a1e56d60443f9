"""A guard against breaking the model: a strength counts only while the model still answers and still models plain text.

1. Answering: the probability of the two answers' first tokens together, mean over the contexts, keeps at
   least `keep_mass` of what it is untouched. A model that no longer says either answer has no log-odds worth
   reading.
2. Plain text: the mean cross-entropy of the questions' own tokens rises by at most `text_rise` nats.
3. Truth, where true statements are given: the fraction of them that the model agrees with falls by at most
   `truth_fall`. Without it, a strong step against sycophancy ends as "always no" (on the embedded model: rate
   0.94 to 0, and agreement with true statements 0.83 to 0), which the first two do not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch

from workbench.conditions.condition import signed
from workbench.contexts import Contexts, Slot, make_contexts
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer
from workbench.models import TokenLayout, pad_right, runner_for
from workbench.personas import Sign, Split


class Edit(Protocol):
    """What can be held while the model runs: a condition at one strength."""

    def edit(self, model: Any) -> AbstractContextManager[None]:
        """The change at this strength, in force while the manager is open."""
        ...


C = TypeVar("C", bound=Edit)


@dataclass(frozen=True)
class ModelVitals:
    """Signs that an intervention leaves the model intact.

    answer_mass: probability that the model gives one of the two answers' first tokens, 0 to 1. text: mean
    cross-entropy of the questions' tokens, nats.
    """

    answer_mass: float
    text: float


@dataclass(frozen=True)
class CapabilityGuard:
    """Limits of an intervention's side effects: the strongest setting that keeps all three limits is used.

    Attributes:
        keep_mass: Fraction of the two answers' probability that must remain.
        text_rise: Rise of the cross-entropy of unrelated text, nats per token, at most.
        n_contexts: Contexts on which this is read.
        truth: Questions whose matching answer agrees with what is true (`true_contexts`); None: not checked.
        truth_fall: By how much their rate may fall.

    Example:
        >>> wb.CapabilityGuard(text_rise=0.2).keep_mass
        0.5
    """

    keep_mass: float = 0.5
    text_rise: float = 0.5
    n_contexts: int = 32
    truth: Contexts | None = None
    truth_fall: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.keep_mass <= 1 or self.text_rise < 0 or self.n_contexts < 1:
            raise UserError(
                f"a guard needs keep_mass from 0 to 1, text_rise from 0 and n_contexts from 1, found {self}"
            )

    def watching(self, model: Any, contexts: Contexts) -> VitalsWatch:
        """The guard with the untouched model's figures; call it outside of any edit."""
        return VitalsWatch(self, model_vitals(model, contexts.take(self.n_contexts)), self._truth(model))

    def _truth(self, model: Any) -> float:
        """Agreement with the true statements, 0 to 1; 1 where none were given."""
        return 1.0 if self.truth is None else answer(model, self.truth).rate


@dataclass(frozen=True)
class VitalsWatch:
    """A guard that knows how the model was before."""

    guard: CapabilityGuard
    before: ModelVitals
    truth: float

    def holds(self, model: Any, contexts: Contexts) -> bool:
        """True while the model as it is now passes all checks."""
        guard, now = self.guard, model_vitals(model, contexts.take(self.guard.n_contexts))
        answers = now.answer_mass >= guard.keep_mass * self.before.answer_mass
        return (
            answers
            and now.text <= self.before.text + guard.text_rise
            and guard._truth(model) >= self.truth - guard.truth_fall
        )

    def strongest(
        self, model: Any, contexts: Contexts, tried: Sequence[C], sign: Sign
    ) -> tuple[C, Answers, int]:
        """The strongest edit that keeps the guard's limits, with its answers.

        Of the edits under which the model holds, the one that moves the mean log-odds furthest in the sign's
        direction (ties go to the earlier one), with its answers; and how many were dropped. UserError when
        every one breaks the model.
        """
        kept: list[tuple[C, Answers]] = []
        for condition in tried:
            with condition.edit(model):
                if self.holds(model, contexts):
                    kept.append((condition, answer(model, contexts)))
        if not kept:
            raise UserError("every strength of the grid breaks the model: give a weaker grid or guard")
        best, answers = max(kept, key=lambda pair: signed(sign) * float(pair[1].log_odds.mean()))
        return best, answers, len(tried) - len(kept)


def true_contexts(model: Any, split: Split, slot: Slot = "system", n: int | None = 60) -> Contexts:
    """Questions on the persona's true statements, for `CapabilityGuard(truth=...)`.

    Those of the split's own groups where there are any (then selection and test never share one), otherwise
    all. UserError where the persona has none.
    """
    own = set(split.groups)
    items = tuple(item for item in split.persona.true_items if item.group in own) or split.persona.true_items
    if not items:
        raise UserError(f"persona {split.persona.name!r} has no true statements to agree with")
    return make_contexts(model, replace(split, name="true statements", items=items), slot, n=n)


@torch.no_grad()
def model_vitals(model: Any, contexts: Contexts, rows: int = 16) -> ModelVitals:
    """Both figures on the bare questions, under whatever edits are on."""
    runner = runner_for(model)
    masses: list[float] = []
    losses: list[torch.Tensor] = []
    for start in range(0, len(contexts), rows):
        batch = contexts.items[start : start + rows]
        ids = pad_right([c.bare_ids for c in batch]).to(runner.device)
        last = torch.tensor([len(c.bare_ids) - 1 for c in batch], device=runner.device)
        nowhere = torch.zeros_like(last)
        with runner.placed(TokenLayout(nowhere, nowhere, last)):
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        for row, context in enumerate(batch):
            first = sorted({answer[0] for answer in context.answers})
            at_decision = runner.log_probs_of(
                resid[row, last[row]][None], torch.tensor([first], device=ids.device)
            )
            masses.append(float(at_decision.exp().sum()))
            losses.append(
                -runner.log_probs_of(resid[row, : last[row]], ids[row, 1 : last[row] + 1, None])[:, 0].cpu()
            )
    return ModelVitals(sum(masses) / len(masses), float(torch.cat(losses).mean()))
