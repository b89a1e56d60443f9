"""What a condition does besides: agreement with true statements, other personas, unrelated text.

A prompt that lowers sycophancy by lowering every agreement has not made the model honest (dual stance: centroid steering
against sycophancy also suppressed agreement with true statements), so each effect has these beside it. All are plain
functions of a model and a condition; `compare(..., collateral={"truth": lambda m, c: agreement_with_truth(m, c, split).rate})`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from workbench.answers import Answers
from workbench.conditions import Condition, SoftPrompt, true_contexts
from workbench.contexts import Slot, make_contexts
from workbench.errors import UserError
from workbench.models import Layout, runner_for
from workbench.personas import Split


def agreement_with_truth(
    model: Any, condition: Condition, split: Split, slot: Slot = "system", n: int | None = None
) -> Answers:
    """Answers on the persona's true statements (`Persona.true_items`): the rate is the share that the model agrees with, as it
    should. Raises UserError where the persona has none."""
    return condition.answer(model, true_contexts(model, split, slot, n))


def other_persona_rates(
    model: Any, condition: Condition, others: Mapping[str, Split], slot: Slot = "system", n: int | None = None
) -> dict[str, Answers]:
    """Answers on splits of other personas, by name: does the condition move those too?"""
    return {name: condition.answer(model, make_contexts(model, split, slot, n=n)) for name, split in others.items()}


@torch.no_grad()
def text_cross_entropy(model: Any, condition: Condition, texts: Sequence[str], slot: Slot = "system") -> float:
    """Mean cross-entropy, nats a token, of texts that have nothing to do with the persona, as the user's words under the
    condition: behind its prompt in the system slot or left of them, and under its intervention. Lower is more usual; nan for
    a soft prompt, which is no text to stand before another."""
    runner = runner_for(model)
    if not texts:
        raise UserError("expected at least one text to measure")
    if isinstance(condition, SoftPrompt):
        return math.nan
    with condition.edit(model) if hasattr(condition, "edit") else nullcontext():
        losses = [_text_losses(runner, condition.prompt, text, slot) for text in texts]
    return float(torch.cat(losses).mean())


def _text_losses(runner: Any, prompt: str | None, text: str, slot: Slot) -> torch.Tensor:
    user = {"role": "user", "content": text if prompt is None or slot == "system" else f"{prompt}\n{text}"}
    system = [{"role": "system", "content": prompt}] if prompt is not None and slot == "system" else []
    before, behind = runner.render([*system, user]).rsplit(text, 1)
    ids = torch.tensor([runner.encode(before + text + behind)], device=runner.device)
    start, stop = len(runner.encode(before)), ids.shape[1] - len(runner.encode(behind))
    nowhere, last = torch.zeros(1, dtype=torch.long), torch.tensor([ids.shape[1] - 1])
    with runner.placed(Layout(nowhere, nowhere, last)):
        resid, _ = runner.run(runner.embed(ids), 0, runner.shape.n_layers)
    at = torch.arange(max(start, 1) - 1, stop - 1, device=runner.device)
    log_probs = runner.logits(resid[0, at]).log_softmax(-1)
    return -log_probs.gather(-1, ids[0, at + 1, None])[:, 0].cpu()
