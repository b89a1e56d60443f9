"""A guard against breaking the model: a strength counts only while the model still answers and still models plain text.

1. Answering: the probability of the two answers' first tokens together, mean over the contexts, keeps at least `keep_mass` of
   what it is untouched. A model that no longer says either answer has no log-odds worth reading.
2. Plain text: the mean cross-entropy of the questions' own tokens rises by at most `text_rise` nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.models import Layout, pad_right, runner_for


@dataclass(frozen=True)
class Vital:
    """answer_mass: probability that the model gives one of the two answers' first tokens, 0 to 1. text: mean cross-entropy of
    the questions' tokens, nats."""

    answer_mass: float
    text: float


@dataclass(frozen=True)
class Guard:
    """What a change may cost. keep_mass: share of the answers' probability that must remain. text_rise: nats a token."""

    keep_mass: float = 0.5
    text_rise: float = 0.5
    n_contexts: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.keep_mass <= 1 or self.text_rise < 0 or self.n_contexts < 1:
            raise UserError(
                f"a guard needs keep_mass from 0 to 1, text_rise from 0 and n_contexts from 1, found {self}"
            )

    def watching(self, model: Any, contexts: Contexts) -> Watch:
        """The guard with the untouched model's figures; call it outside of any edit."""
        return Watch(self, vital(model, contexts.take(self.n_contexts)))


@dataclass(frozen=True)
class Watch:
    """A guard that knows how the model was before."""

    guard: Guard
    before: Vital

    def holds(self, model: Any, contexts: Contexts) -> bool:
        """True while the model as it is now passes both checks."""
        now = vital(model, contexts.take(self.guard.n_contexts))
        return (
            now.answer_mass >= self.guard.keep_mass * self.before.answer_mass
            and now.text <= self.before.text + self.guard.text_rise
        )


@torch.no_grad()
def vital(model: Any, contexts: Contexts, rows: int = 16) -> Vital:
    """Both figures on the bare questions, under whatever edits are on."""
    runner = runner_for(model)
    masses: list[float] = []
    losses: list[torch.Tensor] = []
    for start in range(0, len(contexts), rows):
        batch = contexts.items[start : start + rows]
        ids = pad_right([c.bare_ids for c in batch]).to(runner.device)
        last = torch.tensor([len(c.bare_ids) - 1 for c in batch], device=runner.device)
        nowhere = torch.zeros_like(last)
        with runner.placed(Layout(nowhere, nowhere, last)):
            resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
        for row, context in enumerate(batch):
            log_probs = runner.logits(resid[row, : last[row] + 1]).log_softmax(-1)
            masses.append(float(sum(log_probs[-1, a[0]].exp() for a in context.answers)))
            losses.append(-log_probs[:-1].gather(-1, ids[row, 1 : last[row] + 1, None])[:, 0].cpu())
    return Vital(sum(masses) / len(masses), float(torch.cat(losses).mean()))
