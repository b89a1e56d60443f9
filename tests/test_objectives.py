"""Objectives by hand arithmetic, their scale, and the norm guard with the failure that it prevents."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.objectives import (
    AnswerLogOddsObjective,
    AnswerLogProbObjective,
    HoldObjective,
    ObjectiveScale,
    Readout,
    RepetitionPenalty,
    TextSimilarity,
    answer_log_odds,
    hold_direction,
    latent_activation,
    neutral_prompts,
    projection,
    read,
)
from workbench.personas import load_persona

SITE = Site(1)


def readout(*rows: list[float]) -> Readout:
    return Readout({SITE: torch.tensor(rows)}, None, torch.zeros(len(rows), 2, dtype=torch.long), None)


def direction(*vector: float) -> SimpleNamespace:
    return SimpleNamespace(vector=torch.tensor(vector), site=SITE)


def test_projection_by_hand():
    at = readout([3.0, 4.0], [0.0, 2.0])
    assert projection(direction(2.0, 0.0), "raw").score(at).tolist() == [
        3.0,
        0.0,
    ]  # the vector is made a unit vector
    assert projection(direction(2.0, 0.0), "cosine").score(at).tolist() == pytest.approx([0.6, 0.0])
    scaled = replace(projection(direction(1.0, 0.0)), scale=ObjectiveScale(mean=1.0, sd=2.0))
    assert scaled.score(at).tolist() == [1.0, -0.5]


def test_sums_products_and_signs():
    at = readout([3.0, 4.0])
    x, y = projection(direction(1.0, 0.0), "raw"), projection(direction(0.0, 1.0), "raw")
    assert (x + y).score(at).tolist() == [7.0]
    assert (2 * x - y * 0.5).score(at).tolist() == [4.0]
    assert (-x).sign == -1 and x.sign == 1 and (-1 * -x).sign == 1 and (x - y).sign == 1
    assert (x + y).sites == (SITE,) and not (x + y).needs_final and (x + answer_log_odds()).needs_final
    assert x.depth(5) == 2 and answer_log_odds().depth(5) == 5
    assert (2 * x + RepetitionPenalty()).prompt_score(torch.tensor([[1, 1, 2, 1]])).tolist() == [-0.5]


def test_prompt_terms_by_hand():
    ids = torch.tensor([[5, 6, 5, 5], [1, 2, 3, 4]])
    assert RepetitionPenalty().prompt_score(ids).tolist() == [-0.5, 0.0]
    assert TextSimilarity((1, 2, 9, 4)).prompt_score(ids).tolist() == [0.0, 0.75]


def test_target_is_best_at_its_value():
    at = readout([3.0, 0.0], [1.0, 0.0])
    assert HoldObjective(projection(direction(1.0, 0.0), "raw"), 2.0).score(at).tolist() == [-1.0, -1.0]


class FakeSae:
    """Two ReLU latents, [x0 - 1] and [x1 - 1]."""

    site = SITE

    def pre_activations(self, x, latents):
        return x[..., list(latents)] - 1

    def encode_some(self, x, latents):
        return self.pre_activations(x, latents).relu()


def test_latents_by_hand_and_gradient_of_one_that_is_off():
    goal = latent_activation(FakeSae(), [0, 1], [2.0, -1.0])
    assert goal.score(readout([3.0, 4.0], [0.0, 0.0])).tolist() == [1.0, 0.0]
    x = torch.tensor([[0.0, 0.0]], requires_grad=True)
    score = goal.score(Readout({SITE: x}, None, torch.zeros(1, 2, dtype=torch.long), None))
    assert score.detach().item() == 0.0  # the activation is what is scored
    assert torch.autograd.grad(score.sum(), x)[0].tolist() == [
        [2.0, -1.0]
    ]  # the pre-activation is what is differentiated
    with pytest.raises(UserError, match="one weight for each latent"):
        latent_activation(FakeSae(), [0, 1], [1.0])


def test_a_long_residual_wins_the_raw_projection_but_not_the_guarded_one():
    """The failure of the published code: an attention sink of many times the usual norm, hardly along the direction, scores best."""
    usual, sink = [2.0, 1.0], [40.0, 400.0]
    raw = projection(direction(1.0, 0.0), "raw").score(readout(usual, sink))
    assert raw[1] > 10 * raw[0]
    guarded = replace(projection(direction(1.0, 0.0)), scale=ObjectiveScale(norm_limit=3.0)).score(
        readout(usual, sink)
    )
    assert guarded[1] < guarded[0]
    cosine = projection(direction(1.0, 0.0), "cosine").score(readout(usual, sink))
    assert cosine[1] < cosine[0]


@pytest.fixture(scope="module")
def setting():
    model = random_model()
    return model, make_contexts(model, toy_persona().split().search, n=4)


def test_calibration_makes_neutral_prompts_standard(setting):
    """Over the very prompts it was calibrated on, a z-scored objective has mean 0 and standard deviation 1."""
    model, contexts = setting
    vector = SimpleNamespace(vector=torch.randn(32, generator=torch.Generator().manual_seed(0)), site=SITE)
    for goal in (projection(vector), answer_log_odds()):
        goal = goal.calibrate(model, contexts, n=10, length=4, seed=3)
        scores = torch.stack(
            [
                goal.score(read(model, goal, contexts, p)).mean()
                for p in neutral_prompts(model, contexts, 10, 4, 3)
            ]
        )
        assert float(scores.mean()) == pytest.approx(0.0, abs=1e-3)
        assert float(scores.std()) == pytest.approx(1.0, abs=1e-3)
    kept = hold_direction(vector).calibrate(model, contexts, n=10, length=4, seed=3)
    assert kept.inner.scale == projection(vector).calibrate(model, contexts, n=10, length=4, seed=3).scale


@pytest.mark.parametrize("kind", ("one token", "whole answers"))
def test_calibration_keeps_to_its_batch_and_has_the_same_scale(setting, monkeypatch, kind):
    """The largest batch has at most the given number of tokens; scales differ by rounding only. Both branches of a question stay together."""
    model, contexts = setting
    if kind == "whole answers":
        model = random_model()
        contexts = make_contexts(model, load_persona("feedback_sycophancy").split().search).take(5)
        assert contexts.branched[0].n_branches == 2
    width, runner = runner_for(model).shape.d_model, runner_for(model)
    vector = SimpleNamespace(vector=torch.randn(width, generator=torch.Generator().manual_seed(0)), site=SITE)
    sizes: list[int] = []
    run = type(runner).run

    def counted(self, x, *rest, **more):
        sizes.append(x.shape[0] * x.shape[1])
        return run(self, x, *rest, **more)

    for goal in (projection(vector), answer_log_odds()):
        whole = goal.calibrate(model, contexts, n=4, length=3).scale
        most = 2 * (max(len(c.sequence(())) for c in contexts.branched) + 3)
        monkeypatch.setattr(type(runner), "run", counted)
        sizes.clear()
        parts = goal.calibrate(model, contexts, n=4, length=3, batch_tokens=most).scale
        monkeypatch.undo()
        rows = len(contexts.branched) if goal.needs_final else len(contexts)
        asked = [size for size in sizes if size > 30]  # the others write the neutral prompts
        assert max(asked) <= most and len(asked) == 4 * -(-rows // 2)
        assert (parts.mean, parts.sd) == pytest.approx((whole.mean, whole.sd), rel=1e-3)
        assert parts.norm_limit == pytest.approx(whole.norm_limit, rel=1e-4)


def test_an_objective_that_never_moves_is_refused(setting):
    model, contexts = setting
    dead = latent_activation(
        SimpleNamespace(
            site=SITE, encode_some=lambda x, i: x[..., :1] * 0, pre_activations=lambda x, i: x[..., :1]
        ),
        [0],
    )
    with pytest.raises(UserError, match="does not move over neutral prompts"):
        dead.calibrate(model, contexts, n=4, length=2)


def test_answer_objectives_equal_the_logits(setting):
    model, contexts = setting
    runner = runner_for(model)
    at = read(runner, AnswerLogOddsObjective(), contexts, None)
    for row, context in enumerate(contexts):
        logits = model(torch.tensor([context.bare_ids]))[0, -1]
        a, b = (ids[0] for ids in context.answers)
        assert float(AnswerLogOddsObjective().score(at)[row]) == pytest.approx(
            float(logits[a] - logits[b]), abs=1e-4
        )
        assert float(AnswerLogProbObjective(1).score(at)[row]) == pytest.approx(
            float(logits.log_softmax(-1)[b]), abs=1e-4
        )
