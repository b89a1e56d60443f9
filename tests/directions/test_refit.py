"""A direction refitted to what moves the answers: planted truth under context noise, and a model whose answers read one direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench.directions.refit as module
from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.directions import refit_direction
from workbench.errors import UserError
from workbench.forced_choice import Answers, answer
from workbench.models import Site, runner_for

WORDS = (
    "good",
    "bad",
    "no",
    "yes",
    "honest",
    "kind",
    "blunt",
    "old",
    "new",
    "red",
    "big",
    "small",
    "say",
    "ask",
    "give",
    "take",
)


@pytest.fixture(scope="module")
def setting():
    model = random_model()
    return model, make_contexts(model, toy_persona().split().search, n=4)


def test_a_planted_direction_is_found_under_larger_differences_between_contexts(setting, monkeypatch):
    """State = context offset (ten times as large) + effect x planted + noise; a nuisance direction as large tells nothing."""
    model, contexts = setting
    d_model, generator = runner_for(model).shape.d_model, torch.Generator().manual_seed(0)
    planted, nuisance, *_ = torch.linalg.qr(torch.randn(d_model, 4, generator=generator))[0].T
    effects = torch.linspace(-2, 2, 64)[torch.randperm(64, generator=generator)]
    offsets = 10 * torch.randn(len(contexts), d_model, generator=generator)
    other = torch.randn(64, generator=generator)
    states = offsets[None] + (effects[:, None] * planted + other[:, None] * nuisance)[:, None]
    states = states + 0.1 * torch.randn(states.shape, generator=generator)
    ones = np.ones(len(contexts), bool)
    answers = [
        Answers(np.full(len(contexts), float(e)), ones, contexts.groups, contexts.groups) for e in effects
    ]
    monkeypatch.setattr(module, "answer_prompts", lambda *_: answers)
    state_of = {context.ids((i,)): states[i, j] for i in range(64) for j, context in enumerate(contexts)}
    assert len(state_of) == 64 * len(contexts)
    monkeypatch.setattr(
        module,
        "collect",
        lambda _model, sequences, sites: {sites[0]: torch.stack([state_of[ids] for ids in sequences])},
    )
    found = refit_direction(model, contexts, [(i,) for i in range(64)], Site(1))
    cosine = torch.cosine_similarity(found.vector, planted, dim=0)
    assert float(cosine) > 0.9 and found.auc > 0.9 and found.method == "refit"
    assert float(torch.cosine_similarity(found.vector, nuisance, dim=0).abs()) < 0.5


def test_what_moves_the_answers_is_told_apart_on_new_prompts(setting):
    """The answers of a model read its last residual stream: along the refitted direction there, other prompts are in the answers' order."""
    model, contexts = setting
    runner, site = runner_for(model), Site(runner_for(model).shape.n_layers - 1)
    prompts = [tuple(runner.encode(f"{a} {b}")) for a in WORDS for b in WORDS if a != b][::6]
    found = refit_direction(model, contexts, prompts[::2], site)
    new = prompts[1::2]
    moved = [answer(model, contexts, ids).log_odds.mean() for ids in new]
    states = (
        module.collect(runner, [c.ids(ids) for ids in new for c in contexts], [site])[site]
        .reshape(len(new), len(contexts), -1)
        .mean(1)
    )
    assert np.corrcoef(found.reading(states), moved)[0, 1] > 0.5


def test_bad_input_is_one_clear_line(setting):
    model, contexts = setting
    with pytest.raises(UserError, match="a refit needs at least 8 prompts"):
        refit_direction(model, contexts, ["good"] * 3, Site(1))
    with pytest.raises(UserError, match="and a fraction above 0"):
        refit_direction(model, contexts, ["good"] * 8, Site(1), share=0.7)
    with pytest.raises(UserError, match="all prompts move the answers alike"):
        refit_direction(model, contexts, ["good"] * 8, Site(1))
