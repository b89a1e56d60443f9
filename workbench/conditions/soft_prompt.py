"""Soft prompt: trained vectors in place of a prompt's tokens (prompt tuning, Lester et al. 2021).

It shows what a prompt of this length could do if it did not have to be text: an upper bound for text prompts.
1. Vectors replace the prompt's tokens in the residual stream before the first block. They start as the
   embeddings of random allowed tokens.
2. Adam minimises the mean of -log sigmoid(sign x log-odds) over random batches of the search contexts.
3. For each vector, the nearest token (by cosine, among the embeddings of all tokens that a prompt may hold)
   is reported with its cosine; a low cosine means that the token says little about the vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.answer_tokens import AnswerTable
from workbench.budget import Cost
from workbench.conditions.build_context import BuildContext
from workbench.conditions.condition import Condition, as_contexts, signed, spending
from workbench.conditions.condition_registry import (
    ConditionKind,
    StudyCondition,
    register_kind,
    register_study_condition,
)
from workbench.contexts import Context, Contexts, Slot
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer, own_branches
from workbench.html_text import visible
from workbench.models import Runner, Site, pad_right, runner_for
from workbench.personas import Sign, Split
from workbench.prompt_tokens import allowed_ids


@dataclass(frozen=True)
class PromptTuning:
    """Training settings of a soft prompt.

    Attributes:
        steps: Number of Adam steps.
        batch: Number of contexts per step.
        rate: Learning rate, in units of the mean norm of the starting embeddings.

    Example:
        >>> wb.PromptTuning(steps=20).batch
        16
    """

    steps: int = 100
    batch: int = 16
    rate: float = 0.02


@dataclass(frozen=True, eq=False)
class SoftPrompt(Condition):
    """Trained vectors in place of a prompt's tokens (prompt tuning, Lester et al. 2021).

    They show what a prompt of this length could do if it did not have to be text. `SoftPrompt.fit` trains
    them.

    Attributes:
        vectors: The vectors in the residual stream before block 0, float32 [prompt_pos, d_model].
        nearest: For each vector, the text of the nearest token and its cosine.
        name: Name in tables.
        kind: Kind of condition, "soft_prompt".
        method: How it was trained, in words.
        cost: Cost of the training.

    Example:
        >>> training = wb.PromptTuning(steps=2, batch=2)
        >>> soft = wb.SoftPrompt.fit(model, contexts, "suppress", length=2, training=training)
        >>> soft.vectors.shape[0]
        2
    """

    vectors: Float[Tensor, "prompt_pos d_model"] = field(repr=False)
    nearest: tuple[tuple[str, float], ...] = ()
    name: str = "soft prompt"
    kind: str = "soft_prompt"
    method: str = "prompt tuning"
    cost: Cost = field(default_factory=Cost)

    @classmethod
    def fit(
        cls,
        model: Any,
        search: Split | Contexts,
        sign: Sign = "suppress",
        length: int = 8,
        seed: int = 0,
        slot: Slot = "system",
        training: PromptTuning | None = None,
    ) -> SoftPrompt:
        """Train `length` vectors on the search data; the same seed gives the same bits.

        Args:
            model: A loaded model or its runner.
            search: Questions to train on.
            sign: "suppress" or "induce".
            length: Number of vectors.
            seed: Seed of the starting vectors and of the batches.
            slot: The place in the chat where the vectors go; used to make contexts of a split.
            training: Steps, batch and learning rate; None for the defaults of `PromptTuning`.

        Returns:
            The trained soft prompt with its nearest tokens and cost.

        Raises:
            UserError: The length, the steps or the batch is below 1, or the learning rate is not above 0.
        """
        t = training or PromptTuning()
        if min(length, t.steps, t.batch) < 1 or t.rate <= 0:
            raise UserError(
                f"a soft prompt needs length, steps, batch and rate above 0, found {length}, {t.steps}, {t.batch}, {t.rate}"
            )
        runner, contexts = runner_for(model), as_contexts(model, search, slot)
        generator = torch.Generator().manual_seed(seed)
        vectors = _start(runner, length, generator).requires_grad_()
        optimizer = torch.optim.Adam([vectors], lr=t.rate * float(vectors.detach().norm(dim=-1).mean()))
        with spending(runner, contexts) as receipt:
            for _ in range(t.steps):
                chosen = torch.randperm(len(contexts), generator=generator)[: t.batch].tolist()
                log_odds = _log_odds(runner, [contexts[i] for i in chosen], vectors)
                loss = -torch.nn.functional.logsigmoid(signed(sign) * log_odds).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found = vectors.detach().clone()
        nearest = nearest_tokens(runner, found)
        method = f"prompt tuning, {length} vectors, {t.steps} steps of {t.batch} contexts, seed {seed}; nearest tokens (cosine): "
        method += " ".join(f"{visible(token)} ({cosine:.2f})" for token, cosine in nearest)
        return cls(found, nearest, method=method, cost=receipt.cost)

    def answer(self, model: Any, contexts: Contexts) -> Answers:
        """Return log-odds of the answers that show the persona, with the trained vectors as prompt."""
        runner = runner_for(model)
        placeholder = _placeholder(runner, len(self.vectors))
        with _standing_in(runner, self.vectors):
            return answer(runner, contexts, placeholder)


def nearest_tokens(model: Any, vectors: Float[Tensor, "prompt_pos d_model"]) -> tuple[tuple[str, float], ...]:
    """Find, for each vector, the token whose embedding is most similar to it.

    Only tokens that a prompt may contain are compared (`prompt_tokens.allowed_ids`): no special or invalid
    ones.

    Args:
        model: A loaded model or its runner.
        vectors: Vectors in the residual stream before block 0.

    Returns:
        For each vector, the token's text and the cosine of the angle to its embedding, -1 to 1.
    """
    runner = runner_for(model)
    allowed = torch.nonzero(allowed_ids(runner))[:, 0]
    table = torch.nn.functional.normalize(_embeddings(runner, allowed), dim=-1)
    cosines = torch.nn.functional.normalize(vectors.to(table.device), dim=-1) @ table.T
    best = cosines.max(dim=-1)
    return tuple(
        (runner.decode([int(allowed[i])]), float(c)) for i, c in zip(best.indices, best.values, strict=True)
    )


def _start(runner: Runner, length: int, generator: torch.Generator) -> Float[Tensor, "prompt_pos d_model"]:
    allowed = torch.nonzero(allowed_ids(runner))[:, 0]
    ids = allowed[torch.randint(len(allowed), (length,), generator=generator)]
    return _embeddings(runner, ids).clone()


@torch.no_grad()
def _embeddings(runner: Runner, ids: Tensor) -> Float[Tensor, "token d_model"]:
    """Return the residual stream before block 0 of each token, run alone (one token per row), in float32."""
    return runner.embed(ids[:, None].to(runner.device))[:, 0].float()


def _placeholder(runner: Runner, length: int) -> tuple[int, ...]:
    return (int(torch.nonzero(allowed_ids(runner))[0, 0]),) * length


@contextmanager
def _standing_in(runner: Runner, vectors: Float[Tensor, "prompt_pos d_model"]) -> Iterator[None]:
    """Put the vectors at the prompt's positions for every run inside the `with` block."""

    def replaced(x: Tensor) -> Tensor:
        if runner.layout is None:
            raise UserError("a soft prompt needs a run that says where its prompt is")
        return _put_in(x, vectors, runner.layout.prompt_start)

    with runner.edit(Site(0, "resid_pre").name, replaced):
        yield


def _put_in(
    x: Float[Tensor, "batch pos d_model"],
    vectors: Float[Tensor, "prompt_pos d_model"],
    start: Int[Tensor, " batch"],
) -> Float[Tensor, "batch pos d_model"]:
    """Return `x` with the vectors written at each row's positions from `start` on."""
    at = torch.arange(x.shape[1], device=x.device)[None] - start.to(x.device)[:, None]
    mine = vectors.to(x.device, x.dtype)[at.clamp(0, len(vectors) - 1)]
    return torch.where(((at >= 0) & (at < len(vectors)))[..., None], mine, x)


def _log_odds(
    runner: Runner, contexts: list[Context], vectors: Float[Tensor, "prompt_pos d_model"]
) -> Float[Tensor, " context"]:
    """Return the log-odds of the contexts' answers, differentiable with respect to the vectors."""
    branches = [own_branches(context) for context in contexts]
    every, placeholder = [branch for some in branches for branch in some], _placeholder(runner, len(vectors))
    rows = [branch.sequence(placeholder) for branch in every]
    decision = torch.tensor([len(branch.ids(placeholder)) - 1 for branch in every], device=runner.device)
    start = torch.tensor([len(branch.prefix_ids) for branch in every], device=runner.device)
    embedded = runner.embed(pad_right(rows).to(runner.device)).detach()
    resid, _ = runner.run(_put_in(embedded, vectors, start), 0, runner.shape.n_layers)
    table = AnswerTable(every, runner.device)
    if table.one_token:
        logits = runner.logits(resid[torch.arange(len(rows), device=runner.device), decision])
        matching, other = logits.gather(-1, table.first).unbind(-1)
        return matching - other
    scores = table.scores(runner, resid, decision, range(len(rows))).split([len(some) for some in branches])
    return torch.stack([part.mean() for part in scores])


def _build(context: BuildContext) -> list[SoftPrompt]:
    options = {"seed": context.seed, "slot": context.slot}
    return [
        SoftPrompt.fit(context.model, context.splits.search, context.sign, context.prompt_length, **options)
    ]


register_kind(ConditionKind("soft_prompt", "answer", "a prompt of trained vectors instead of words"))
register_study_condition(
    StudyCondition(
        "soft_prompt", "soft_prompt", "prompt tuning (Lester et al.): vectors, no text", _build, order=190
    )
)
