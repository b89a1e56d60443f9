"""Limit the side effects of an intervention: reject strengths at which the model no longer works.

1. Answers: the probability that the model begins with either of the two answers, averaged over the contexts,
   must stay at least `keep_mass` of its value without the intervention. If the model gives neither answer,
   its log-odds mean nothing.
2. Plain text: the mean cross-entropy of the questions' own tokens may rise by at most `text_rise` nats.
3. True statements, if given: the fraction that the model agrees with may fall by at most `truth_fall`. This
   check finds what the first two miss: on the embedded model, strong steering against sycophancy ends in
   "always no" (sycophancy rate 0.94 to 0, agreement with true statements 0.83 to 0).
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
    """Interface of an intervention of fixed strength that can be active for a block, such as `Steering`."""

    def edit(self, model: Any) -> AbstractContextManager[None]:
        """Apply the intervention to the model's runs while the context manager is open."""
        ...


C = TypeVar("C", bound=Edit)


@dataclass(frozen=True)
class ModelVitals:
    """Two figures that show whether a model still works under an intervention.

    Attributes:
        answer_mass: Probability that the model begins with the first token of either answer, 0 to 1, averaged
            over contexts.
        text: Mean cross-entropy of the questions' tokens, nats per token.
    """

    answer_mass: float
    text: float


@dataclass(frozen=True)
class CapabilityGuard:
    """Limits on an intervention's side effects on answers, plain text and true statements.

    A strength of the intervention that breaks a limit cannot be chosen.

    Attributes:
        keep_mass: Smallest fraction, 0 to 1, of the two answers' total probability that must remain.
        text_rise: Largest allowed rise of the cross-entropy of the questions' tokens, nats per token.
        n_contexts: Number of contexts on which the first two limits are measured.
        truth: Questions whose matching answer agrees with a true statement (`true_contexts`); with None this
            third limit is not checked.
        truth_fall: Largest allowed fall of the agreement rate on `truth`.

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
        """Measure the model without interventions, and return a watch that compares later states with it.

        Args:
            model: A loaded model or its runner; no intervention may be active.
            contexts: Questions of which the first `n_contexts` are used.

        Returns:
            The watch, whose `holds` checks the limits while an intervention is active.
        """
        return VitalsWatch(self, model_vitals(model, contexts.take(self.n_contexts)), self._truth(model))

    def _truth(self, model: Any) -> float:
        """Return the rate of agreement with the true statements, 0 to 1; 1 if the guard has none."""
        return 1.0 if self.truth is None else answer(model, self.truth).rate


@dataclass(frozen=True)
class VitalsWatch:
    """A guard together with the figures of the model before any intervention.

    Attributes:
        guard: The limits.
        before: Answer mass and cross-entropy of the untouched model.
        truth: Rate of agreement of the untouched model with the true statements, 0 to 1.
    """

    guard: CapabilityGuard
    before: ModelVitals
    truth: float

    def holds(self, model: Any, contexts: Contexts) -> bool:
        """Whether the model, under the interventions that are active now, keeps all limits of the guard."""
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
        """Choose the intervention with the largest effect among those that keep the guard's limits.

        The effect is the mean log-odds in the sign's direction; on ties the earlier intervention is chosen.

        Args:
            model: A loaded model or its runner.
            contexts: Questions on which limits and effect are measured.
            tried: Interventions to try, such as one steering vector at several strengths.
            sign: "suppress" or "induce".

        Returns:
            The chosen intervention, its answers on the contexts, and the number of interventions that broke a
            limit.

        Raises:
            UserError: Every intervention breaks a limit.
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
    """Make questions about true statements, for `CapabilityGuard(truth=...)`.

    The statements are those of the split's own groups, so that selection and test have none in common. If the
    split's groups have no true statement, all of the persona's are used.

    Args:
        model: A loaded model or its runner.
        split: The split whose groups are used.
        slot: The place in the chat where a prompt goes.
        n: Largest number of statements; None for all.

    Returns:
        The contexts, whose matching answer agrees with the statement.

    Raises:
        UserError: The persona has no true statements.
    """
    own = set(split.groups)
    items = tuple(item for item in split.persona.true_items if item.group in own) or split.persona.true_items
    if not items:
        raise UserError(f"persona {split.persona.name!r} has no true statements to agree with")
    return make_contexts(model, replace(split, name="true statements", items=items), slot, n=n)


@torch.no_grad()
def model_vitals(model: Any, contexts: Contexts, rows: int = 16) -> ModelVitals:
    """Measure two signs of a working model, on questions without a prompt, under all active interventions.

    Args:
        model: A loaded model or its runner.
        contexts: Questions to average over.
        rows: Number of questions per forward pass.

    Returns:
        The probability of the two answers and the cross-entropy of the questions' tokens.
    """
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
