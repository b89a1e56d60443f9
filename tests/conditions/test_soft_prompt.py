"""The soft prompt: vectors that are embeddings act as their tokens do, gradients are right, and training reaches its aim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.conditions import PromptTuning, SoftPrompt
from workbench.conditions.soft_prompt import _log_odds, nearest_tokens
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import runner_for
from workbench.prompt_tokens import allowed_ids, encode_prompt

MODEL = random_model()
RUNNER = runner_for(MODEL)
CONTEXTS = make_contexts(MODEL, toy_persona().split().search)


def embedded(text: str) -> torch.Tensor:
    return MODEL.W_E[list(encode_prompt(MODEL, CONTEXTS, text))].clone()


@pytest.mark.parametrize("metric", ["letters", "text"])
def test_vectors_that_are_embeddings_answer_as_the_prompt_does(metric: str) -> None:
    contexts = make_contexts(MODEL, toy_persona().split().search, metric=metric)
    there = SoftPrompt(embedded("Be blunt.")).answer(MODEL, contexts).log_odds
    assert np.allclose(there, answer(MODEL, contexts, "Be blunt.").log_odds, atol=1e-5)


def test_the_loss_sees_the_answers_that_are_reported() -> None:
    assert all(len(a) == 1 for c in CONTEXTS for a in c.answers)
    there = _log_odds(RUNNER, list(CONTEXTS), embedded("Be blunt."))
    assert np.allclose(there.detach().numpy(), answer(MODEL, CONTEXTS, "Be blunt.").log_odds, atol=1e-4)


def test_gradients_equal_finite_differences() -> None:
    vectors = embedded("Be blunt.").requires_grad_()
    step = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    _log_odds(RUNNER, list(CONTEXTS), vectors).mean().backward()
    with torch.no_grad():
        ends = [_log_odds(RUNNER, list(CONTEXTS), vectors + e * step).double().mean() for e in (1e-2, -1e-2)]
    assert float((vectors.grad * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=2e-2)


@pytest.mark.parametrize(("sign", "side"), [("suppress", -1), ("induce", 1)])
def test_training_moves_the_answers_its_way_and_is_seeded(sign: str, side: int) -> None:
    contexts = make_contexts(
        MODEL, toy_persona().split().search, metric="text"
    )  # a random model cannot bind letters

    def fit():
        return SoftPrompt.fit(
            MODEL, contexts, sign, length=4, training=PromptTuning(steps=25, batch=8, rate=0.1)
        )

    trained = fit()
    assert (
        side * trained.answer(MODEL, contexts).log_odds.mean()
        > side * answer(MODEL, contexts).log_odds.mean() + 0.3
    )
    assert trained.cost.backward > 0 and trained.prompt is None
    assert len(trained.nearest) == 4 and all(
        f"({cosine:.2f})" in trained.method for _, cosine in trained.nearest
    )
    assert torch.equal(trained.vectors, fit().vectors)


def test_nearest_tokens_are_named() -> None:
    ids = torch.nonzero(allowed_ids(MODEL))[[5, 50], 0]
    found = nearest_tokens(MODEL, 3 * MODEL.W_E[ids])
    assert [token for token, _ in found] == [RUNNER.decode([int(i)]) for i in ids]
    assert [cosine for _, cosine in found] == pytest.approx([1, 1], abs=1e-5)


def test_a_length_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="above 0, found 0"):
        SoftPrompt.fit(MODEL, CONTEXTS, length=0)
