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
    """Interface of an intervention of fixed strength, such as `Steering`, that `with` activates."""

    def edit(self, model: Any) -> AbstractContextManager[None]:
        """Return a context manager; the intervention acts on all runs of the model inside the block."""
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

    `tune` of a steering vector or a latent clamp rejects every strength that exceeds a limit.

    Attributes:
        keep_mass: Smallest fraction, 0 to 1, of the two answers' total probability that must remain under the
            intervention.
        text_rise: Largest allowed rise of the cross-entropy of the questions' tokens, nats per token.
        n_contexts: Number of questions on which the first two limits are measured.
        truth: Questions about true statements, of which the answer that agrees is scored (see
            `true_contexts`); with None this third limit is not checked.
        truth_fall: Largest allowed fall of the fraction of `truth` that the model agrees with.

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
        """Measure the model without interventions, as the baseline of the guard's limits on side effects.

        Args:
            model: A loaded model or its runner; no intervention may be active.
            contexts: Questions of which the first `n_contexts` are used.

        Returns:
            The baseline with the limits; its method `holds` checks them while an intervention is active.
        """
        return VitalsWatch(self, model_vitals(model, contexts.take(self.n_contexts)), self._truth(model))

    def _truth(self, model: Any) -> float:
        """Return the rate of agreement with the true statements, 0 to 1; 1 if the guard has none."""
        return 1.0 if self.truth is None else answer(model, self.truth).rate


@dataclass(frozen=True)
class VitalsWatch:
    """Limits on side effects together with the figures of the model without an intervention.

    Attributes:
        guard: The limits.
        before: Probability of the two answers and cross-entropy of the questions, without an intervention.
        truth: Fraction of the true statements that the model agrees with, without an intervention.
    """

    guard: CapabilityGuard
    before: ModelVitals
    truth: float

    def holds(self, model: Any, contexts: Contexts) -> bool:
        """Whether the model, under the interventions active now, stays within all limits on side effects."""
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
        """Choose the intervention with the largest effect that stays within the limits on side effects.

        The effect is the mean log-odds of the answers that show the persona, negated for "suppress". On ties
        the earlier intervention is chosen.

        Args:
            model: A loaded model or its runner.
            contexts: Questions on which side effects and effect are measured.
            tried: Interventions to try, such as one steering vector at several strengths.
            sign: "suppress" or "induce".

        Returns:
            The chosen intervention, the model's answers under it, and the number of interventions that
            exceeded a limit.

        Raises:
            UserError: Every intervention exceeds a limit.
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
    """Make questions about true statements, for the third limit of a `CapabilityGuard`.

    The statements belong to the question groups of the split, so that selection and test have none in common.
    If these groups have no true statement, all of the persona's true statements are used.

    Args:
        model: A loaded model or its runner.
        split: The split whose groups are used.
        slot: The place in the chat where a prompt goes, such as the system message.
        n: Largest number of statements; None for all.

    Returns:
        The questions; the answer that is scored as the persona's is the one that agrees with the statement.

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
    """Measure whether a model still works, under all interventions active now, on questions without a prompt.

    Args:
        model: A loaded model or its runner.
        contexts: Questions to average over.
        rows: Number of questions per forward pass.

    Returns:
        The mean probability that the model begins with one of the two answers, and the mean cross-entropy of
        the questions' tokens (nats).
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
