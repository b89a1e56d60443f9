"""A user's own ActivationCaches: the same directions and latents as through the workbench's own passes; and what does not fit is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from tests.support.toy_models import random_model, toy_persona
from tests.support.toy_sae import toy_sae
from workbench.directions import activation_sampling
from workbench.errors import UserError

SMALL = {"n": 24, "n_texts": 4, "n_contexts": 4}


def users_own(model, asked: list, token=-1) -> wb.LabelledCache:
    """What a TransformerLens user does with the same questions: one run_with_cache per sequence, log-odds from the logits."""
    caches, scores, groups, contexts = [], [], [], []
    for context, prompt in asked:
        ids = torch.tensor(
            [[*(context.bare_ids if prompt is None else (*context.prefix_ids, *prompt, *context.suffix_ids))]]
        )
        logits, cache = model.run_with_cache(ids)
        (matching,), (other,) = context.answers
        scores.append(float(logits[0, -1].log_softmax(-1)[matching] - logits[0, -1].log_softmax(-1)[other]))
        caches.append(cache)
        groups.append(context.item.group)
        contexts.append(f"{context.item.id} {context.matching_first}")
    return wb.LabelledCache(caches, scores, token, groups, contexts, persona="toy")


@pytest.fixture
def asked(monkeypatch) -> list:
    """(context, prompt) of every row of the train data that the workbench draws."""
    rows, own = [], activation_sampling.own_choices

    def seen(runner, contexts, prompts, layers):
        if not rows:  # the train data are drawn first
            rows.extend(zip(contexts, prompts, strict=True))
        return own(runner, contexts, prompts, layers)

    monkeypatch.setattr(activation_sampling, "own_choices", seen)
    return rows


def methods_of(data) -> tuple[str, ...]:
    """Methods that are fitted to the model's own choices, compared within contexts and between them."""
    from workbench.directions import DIRECTION_METHODS

    found = [name for name, method in DIRECTION_METHODS.items() if method.labels == data]
    return tuple(found[:2])


def test_directions_of_own_caches_are_those_of_the_workbenchs_passes(asked):
    model, splits = random_model(), toy_persona().split()
    methods = (*methods_of("choice"), *methods_of("choice_within"))
    assert len(methods) >= 2
    ours = wb.find_directions(model, splits.train, splits.search, methods=methods, **SMALL)
    theirs = wb.find_directions(model, users_own(model, asked), splits.search, methods=methods, **SMALL)
    assert len(asked) == 24 and set(theirs.directions) == set(ours.directions)
    for key, direction in ours.directions.items():
        # fits amplify the rounding of the two ways through a block (1e-5 in the log-probabilities); entries
        # are about 0.5
        torch.testing.assert_close(theirs.directions[key].vector, direction.vector, rtol=1e-3, atol=5e-4)
    columns = ["layer", "method", "predicts", "auc"]
    pd.testing.assert_frame_equal(
        theirs.table[columns].sort_values(columns[:2], ignore_index=True),
        ours.table[columns].sort_values(columns[:2], ignore_index=True),
        atol=1e-4,
    )


def test_latents_of_own_caches_are_those_of_the_workbenchs_passes(asked):
    model, train, sae = random_model(), toy_persona().split().train, toy_sae()
    for labels in ("choice", "choice_within"):
        asked.clear()
        ours = wb.rank_latents(model, sae, train, k=4, labels=labels, n=32)
        theirs = wb.rank_latents(model, sae, users_own(model, asked), k=4, labels=labels)
        assert theirs.ids == ours.ids and (theirs.persona, theirs.site) == (ours.persona, ours.site)
        np.testing.assert_allclose(theirs.weights, ours.weights, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            theirs.table["effect_size"], ours.table["effect_size"], rtol=1e-3, atol=1e-4
        )


def test_one_batched_cache_and_a_list_of_single_ones_are_the_same_and_the_fit_is_the_difference_of_means():
    model = random_model()
    ids = torch.randint(4, 300, (12, 7), generator=torch.Generator().manual_seed(0))
    scores, token = [1.0, -1.0] * 6, [6, 5, 4] * 4
    _, batched = model.run_with_cache(ids)
    single = [model.run_with_cache(row[None], remove_batch_dim=True)[1] for row in ids]
    held_out = wb.LabelledCache(batched, scores, token)
    given = [wb.LabelledCache(caches, scores, token) for caches in (batched, single)]
    found = [wb.find_directions(model, train, held_out, (1,), methods_of("choice")[:1]) for train in given]
    rows = batched["resid_post", 1][torch.arange(12), torch.tensor(token)]
    by_hand = rows[0::2].mean(0) - rows[1::2].mean(0)
    for scan in found:
        torch.testing.assert_close(scan.best.vector, by_hand, rtol=1e-4, atol=1e-5)
        reading = rows @ by_hand
        auc = float((reading[0::2, None] > reading[None, 1::2]).double().mean())
        assert (
            scan.best.auc == pytest.approx(auc) and scan.effects.empty and np.isnan(scan.table["predicts"][0])
        )
        assert scan.best.hook_name == "blocks.1.hook_resid_post" and "<table" in scan._repr_html_()


def test_what_does_not_fit_is_named():
    model, splits, sae = random_model(), toy_persona().split(), toy_sae()
    _, cache = model.run_with_cache(torch.tensor([[4, 5, 6], [7, 8, 9]]))
    _, few = model.run_with_cache(torch.tensor([[4, 5, 6]]), names_filter="blocks.2.hook_resid_post")
    made = wb.LabelledCache
    for given, says in (
        (made(cache, [1.0]), "one finite score per row, 2 in all"),
        (made(cache, [1.0, float("nan")]), "finite score"),
        (made(cache, [1.0, -1.0], token=3), "row 0 has 3 tokens"),
        (made(cache, [1.0, -1.0], token=[1]), "one token per row"),
        (made(cache, [1.0, -1.0], groups=["a"]), "2 groups and contexts"),
        (made([], [1.0]), "expected an ActivationCache"),
        (made(3, [1.0]), "expected an ActivationCache"),
        (made({"hook_embed": torch.zeros(2, 3, 32)}, [1.0, -1.0]), "no output of a block"),
    ):
        with pytest.raises(UserError, match=says):
            wb.find_directions(model, given, splits.search, **SMALL)
    with pytest.raises(UserError, match=r"no activation 'blocks.1.hook_resid_post'"):
        wb.rank_latents(model, sae, made(few, [1.0]), labels="choice")
    with pytest.raises(UserError, match="has no `contexts`"):
        wb.rank_latents(model, sae, made(cache, [1.0, -1.0]))


def test_a_direction_goes_to_a_hook_and_back():
    vector = torch.randn(32, generator=torch.Generator().manual_seed(2))
    direction = wb.Direction.from_tensor(vector, "blocks.1.hook_resid_post", "toy")
    assert (
        direction.hook_name == "blocks.1.hook_resid_post"
        and torch.equal(direction.to_tensor(), vector)
        and direction.persona == "toy"
    )
    direction.to_tensor()[:] = 0
    assert torch.equal(direction.vector, vector), "a tensor of its own"
    model, ids = random_model(), torch.tensor([[4, 5, 6, 7]])
    unit = vector / vector.norm()
    steered = model.run_with_hooks(ids, fwd_hooks=[(direction.hook_name, lambda x, hook: x + 2 * unit)])
    with wb.steer(model, direction, 2.0):
        torch.testing.assert_close(model(ids), steered, rtol=1e-4, atol=1e-4)
    for name in ("blocks.x.hook_resid_post", "hook_embed"):
        with pytest.raises(UserError, match="unknown hook name"):
            wb.Direction.from_tensor(vector, name)
    with pytest.raises(UserError, match="one finite vector"):
        wb.Direction.from_tensor(vector[None], "blocks.1.hook_resid_post")


def test_it_prints_as_one_line_without_its_activations():
    cache = {"blocks.0.hook_resid_post": torch.zeros(3, 2, 4)}
    assert (
        repr(wb.LabelledCache(cache, [1, -1, 1]))
        == "LabelledCache(persona: 3 labelled rows of 1 cache, read at the decision token)"
    )
    assert "6 labelled rows of 2 caches" in repr(wb.LabelledCache([cache, cache], [1, -1] * 3))
