"""What each method proposes and learns, against hand arithmetic and planted additive effects."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.budget import Budget
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.models import Site, runner_for
from workbench.objectives import AnswerLogOddsObjective, projection
from workbench.prompt_tokens import allowed_ids
from workbench.search import Beam, ChildProposals, Guided, ScoredPrompts, Scorer, search
from workbench.search.toolkit import SearchToolkit

LENGTH = 5


@pytest.fixture(scope="module")
def families() -> SearchToolkit:
    model = random_model()
    contexts = make_contexts(model, toy_persona().split().search, n=2)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    goal = projection(SimpleNamespace(vector=vector, site=Site(1)), "raw")
    return SearchToolkit.make(Scorer(runner_for(model), goal, contexts), seed=0)


def test_beam_changes_one_position_after_the_other_without_drawing_twice(families):
    method = Beam(length=LENGTH, population=3, children=6)
    ids = method.start(families)
    prepared = families.scorer.prepare(ids)
    for step in (0, 3, LENGTH + 1):
        children = method.propose(families, prepared, step)
        differs = children.ids != ids[children.parent]
        assert differs.nonzero()[:, 1].unique().tolist() == [step % LENGTH]
        assert len({tuple(row) for row in children.ids.tolist()}) == len(children)


def test_guided_learns_one_swap_by_hand(families):
    """A gain g of one swap between two unknown tokens: each takes g / (2 + noise), and is known better by as much."""
    families.memory.clear()
    parents = families.random_prompts(1, LENGTH)
    old = int(parents[0, 2])
    new = next(t for t in torch.nonzero(families.allowed)[:, 0].tolist() if t not in parents[0].tolist())
    child = parents.clone()
    child[0, 2] = new
    _learn(families, parents, child, torch.tensor([1.5]))
    assert families.memory["effect"][[new, old]].tolist() == pytest.approx([1.5 / 2.3, -1.5 / 2.3])
    assert families.memory["variance"][[new, old]].tolist() == pytest.approx([1 - 1 / 2.3] * 2)
    assert int((families.memory["variance"] < 1).sum()) == 2


def test_guided_finds_planted_additive_effects(families):
    """Gains that are sums of the tokens' effects and noise: the measured effects come to agree with the planted ones."""
    families.memory.clear()
    rng = np.random.default_rng(0)
    tokens = torch.nonzero(families.allowed)[:40, 0]
    effect = torch.zeros(len(families.allowed))
    effect[tokens] = torch.tensor(rng.normal(size=40), dtype=torch.float32)
    for _ in range(30):
        parents = tokens[torch.tensor(rng.integers(40, size=(1, LENGTH)))]
        children = parents.repeat(24, 1)
        for row in range(24):
            for place in rng.choice(LENGTH, size=1 + row % 2, replace=False):
                children[row, place] = tokens[int(rng.integers(40))]
        gains = (
            effect[children].sum(1)
            - effect[parents].sum(1)
            + torch.tensor(rng.normal(scale=0.1, size=24), dtype=torch.float32)
        )
        _learn(families, parents, children, gains)
    assert np.corrcoef(families.memory["effect"][tokens], effect[tokens])[0, 1] > 0.95


def test_guided_ranks_by_what_it_measured(families):
    """A token that was measured to help is drawn; without measured effects the gradient alone decides."""
    families.memory.clear()
    ids = families.random_prompts(2, LENGTH)
    prepared = families.scorer.prepare(ids)
    helpful = next(
        t for t in torch.nonzero(families.allowed)[:, 0].tolist() if t not in ids.flatten().tolist()
    )
    effect, variance = torch.zeros(len(families.allowed)), torch.ones(len(families.allowed))
    effect[helpful], variance[helpful] = 1e6, 0.0
    families.memory.update(effect=effect, variance=variance)
    method = Guided(length=LENGTH, population=2, children=4, explore=0.0, swaps=(1.0,), crossovers=0.0)
    assert (method.propose(families, prepared, 0).ids == helpful).any(1).all()
    ignoring = method.model_copy(update={"measured": 0.0})
    assert not (ignoring.propose(families, prepared, 0).ids == helpful).any(1).all()
    families.memory.clear()


def test_guided_believes_gradients_as_far_as_they_came_true(families):
    """Gains that are 0.2 of the first-order ones: belief goes from `trust` to near 0.2; gains that are unrelated: to near 0."""
    generator = torch.Generator().manual_seed(0)
    for truth in (0.2, 0.0):
        families.memory.clear()
        method = Guided(length=LENGTH, trust=1.0)
        assert method._believed(families) == 1.0
        for _ in range(20):
            parents, children = families.random_prompts(1, LENGTH), families.random_prompts(12, LENGTH)
            slope = torch.randn(1, LENGTH, families.scorer.runner.shape.d_model, generator=generator)
            moved = families.scorer.runner.embed(children) - families.scorer.runner.embed(parents)
            _learn(families, parents, children, truth * (slope * moved).sum((1, 2)), slope)
        assert method._believed(families) == pytest.approx(truth, abs=0.08)
    families.memory.clear()


def test_guided_scores_no_child_twice(families):
    families.memory.clear()
    ids = families.random_prompts(2, LENGTH)
    prepared = families.scorer.prepare(ids)
    method = Guided(length=LENGTH, population=2, children=6, explore=0.0)
    first = method.propose(families, prepared, 0)
    parents, children = families.scorer.score_children(prepared, first)
    method.learn(families, prepared, first, parents, children)
    again = method.propose(families, prepared, 0)
    assert not {tuple(r) for r in first.ids.tolist()} & {tuple(r) for r in again.ids.tolist()}
    families.memory.clear()


def test_start_texts_must_have_the_methods_length(families):
    text = families.scorer.runner.decode(families.random_prompts(1, LENGTH)[0].tolist())
    for kind in (Beam, Guided):
        started = kind(length=LENGTH, population=2, start_text=text).start(families)
        assert families.scorer.runner.decode(started[0].tolist()) == text and started.shape == (2, LENGTH)
        with pytest.raises(UserError, match=f"the start text has {LENGTH} tokens, the method's length is 3"):
            kind(length=3, population=2, start_text=text).start(families)


def _learn(
    families: SearchToolkit,
    parents: torch.Tensor,
    children: torch.Tensor,
    gains: torch.Tensor,
    slope: torch.Tensor | None = None,
) -> None:
    nowhere = torch.zeros(len(children), dtype=torch.long)
    families.memory["slope"] = (
        torch.zeros(1, LENGTH, families.scorer.runner.shape.d_model) if slope is None else slope
    )
    Guided(length=LENGTH).learn(
        families,
        SimpleNamespace(ids=parents, on_host=parents),
        ChildProposals(children, nowhere, nowhere),
        ScoredPrompts(parents, torch.zeros(1), torch.zeros(1)),
        ScoredPrompts(children, gains, torch.zeros(len(children))),
    )


@pytest.fixture
def poisoned():
    """Sets one number of a weight to NaN; put back afterwards."""
    kept = []

    def poison(weight: torch.Tensor, row: int) -> None:
        kept.append((weight, weight.data.clone()))
        weight.data[row] = float("nan")

    yield poison
    for weight, before in kept:
        weight.data.copy_(before)


@pytest.mark.parametrize("block", [0, 2])
def test_a_score_that_is_no_number_names_the_prompt_and_the_block(poisoned, block):
    model = random_model(seed=1)
    contexts = make_contexts(model, toy_persona().split().search, n=2)
    scorer = Scorer(runner_for(model), AnswerLogOddsObjective(), contexts)
    ids = torch.nonzero(allowed_ids(model))[:3].T
    poisoned(model.blocks[block].mlp.W_out, 0)
    with pytest.raises(
        UserError,
        match=re.escape(repr(scorer.runner.decode(ids[0].tolist()))) + f".* no finite number: block {block} ",
    ):
        scorer.score(ids)
    with pytest.raises(
        UserError, match=f"left of the prompt already has values that are not finite: block {block} "
    ):
        search(
            model,
            AnswerLogOddsObjective(),
            contexts,
            Beam(length=3, population=2, children=2),
            Budget(steps=1),
        )


def test_one_bad_token_is_named_by_its_prompt(poisoned):
    model = random_model(seed=1)
    contexts = make_contexts(model, toy_persona().split().search, n=2)
    scorer = Scorer(runner_for(model), AnswerLogOddsObjective(), contexts)
    good, bad = torch.nonzero(allowed_ids(model))[:6, 0].view(2, 3)
    poisoned(model.embed.W_E, int(bad[1]))
    assert scorer.score(good[None]).objective.isfinite().all()
    with pytest.raises(
        UserError, match=re.escape(repr(scorer.runner.decode(bad.tolist()))) + ".*the embedding "
    ):
        scorer.score(torch.stack([good, bad]))
