"""Latents: effect sizes against hand arithmetic and scipy, a planted latent, the published rule against numpy."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy.stats import ttest_ind

from tests.support.toy_models import random_model, toy_persona
from workbench.contexts import make_contexts
from workbench.directions import methods as fit
from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.class_split import positive
from workbench.directions.labelled_activations import LabelledActivations
from workbench.errors import UserError
from workbench.latents import (
    LatentRanking,
    describe_latents,
    effect_sizes,
    group_halves,
    persona_probe,
    promoted,
    rank_latents,
)
from workbench.models import Site, runner_for
from workbench.objectives import read
from workbench.sae import Sae, context_texts, explained_variance
from workbench.sae.reconstruction_check import token_states
from workbench.schema import LatentsFile


def splits():
    return toy_persona("text").split()


@cache
def planted_sae(d_sae=40, latent=5, seed=0):
    """A random ReLU SAE at block 1 whose latent 5 reads the model's own choice on the train split (6: its opposite)."""
    model = random_model()
    data = ActivationSampler(runner_for(model), [1]).labelled(splits().train, "choice", 200)
    axis = fit.logistic_probe(data.states[1], data.scores)
    axis = axis / axis.norm()
    module = StandardSAE(
        StandardSAEConfig(d_in=32, d_sae=d_sae, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_post"))
    )
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=g))
        middle = (data.states[1] - module.b_dec) @ axis
        module.W_enc[:, latent], module.b_enc[latent] = axis, -middle.quantile(0.2)
        module.W_enc[:, latent + 1], module.b_enc[latent + 1] = -axis, middle.quantile(0.8)
        module.W_enc[:, 9] = 0
        module.b_enc[9] = -1
    return Sae("planted", Site(1), module)


@pytest.fixture(scope="module")
def ranked():
    return rank_latents(random_model(), planted_sae(), splits().train, k=6, labels="choice", n=200)


def test_effect_sizes_by_hand_and_by_scipys_t():
    x, shown = (
        torch.tensor([[1.0, 5.0], [3.0, 5.0], [0.0, 5.0], [0.0, 5.0]]),
        torch.tensor([True, True, False, False]),
    )
    assert effect_sizes(x, shown).tolist() == pytest.approx([2 / np.sqrt(0.5 * 2.0), 0.0])
    rng = np.random.default_rng(0)
    x, shown = rng.normal(size=(60, 4)), rng.random(60) < 0.4
    t = ttest_ind(x[shown], x[~shown]).statistic
    by_t = t * np.sqrt(1 / shown.sum() + 1 / (~shown).sum())
    np.testing.assert_allclose(
        effect_sizes(torch.from_numpy(x), torch.from_numpy(shown)).numpy(), by_t, rtol=1e-9
    )
    assert not effect_sizes(torch.ones(3, 2), torch.tensor([True, True, True])).any()


def test_planted_latents_come_first_with_their_signs_and_one_that_turns_round_is_dropped(monkeypatch):
    """Made-up rows: the encoder columns of latents 5 and 6 (opposite) carry the score; 7 does in half of the groups only,
    and there against its sign in the other half."""
    sae, g = planted_sae(), torch.Generator().manual_seed(0)
    groups = tuple(f"g{i // 10}" for i in range(200))
    first, _ = group_halves(groups, 0)
    score = torch.randn(200, generator=g)
    axes = [torch.nn.functional.normalize(sae.W_enc[:, i], dim=0) for i in (5, 7)]
    turning = torch.where(first, score, -score)
    x = (
        torch.randn(200, 32, generator=g)
        + 3 * score.sign()[:, None] * axes[0]
        + 3 * turning.sign()[:, None] * axes[1]
    )
    data = LabelledActivations(
        {1: x}, score, groups, groups, (1,) * 200, score > 0, "decision", tuple(map(str, range(200)))
    )
    monkeypatch.setattr(ActivationSampler, "labelled", lambda *_: data)
    found = rank_latents(random_model(), sae, splits().train, k=4, labels="choice")
    assert set(found.ids[:2]) == {5, 6} and not {7, 9} & set(found.ids)
    by_id = {row.latent: row for row in found}
    assert by_id[5].weight > 0 > by_id[6].weight and by_id[5].effect_size > 1 and by_id[6].effect_size < -1
    assert by_id[5].auc > 0.9 and by_id[6].auc < 0.1


def test_statistics_and_weights_are_those_of_the_encoded_rows(ranked):
    sae, data = (
        planted_sae(),
        ActivationSampler(runner_for(random_model()), [1]).labelled(splits().train, "choice", 200),
    )
    column = sae.encode(data.states[1])[:, ranked[2].latent]
    shown = positive(data.scores)
    assert ranked[2].weight == pytest.approx(float(column[shown].mean() - column[~shown].mean()), abs=1e-5)
    assert ranked[2].decision_share == pytest.approx(float((column > 0).float().mean()))
    assert ranked[2].mean == pytest.approx(float(column.mean()), abs=1e-5)
    assert ranked[2].max_activation == ranked[2].top[0][0] == pytest.approx(float(column.max()), abs=1e-5)
    assert ranked[2].top[0][1] == data.texts[int(column.argmax())]


def test_density_is_the_fraction_of_tokens_in_the_ranking_and_on_the_card(ranked):
    """One number: of all tokens but the first of the train questions as the model meets them, counted here one by one."""
    model, sae = runner_for(random_model()), planted_sae()
    corpus = context_texts(model, splits().train, 200)
    states = token_states(model, corpus, [Site(1)])[Site(1)]
    cards = describe_latents(model, sae, ranked.ids[:3], corpus)
    for latent, card in zip(list(ranked)[:3], cards, strict=True):
        counted = sum(float(sae.encode(state)[latent.latent]) != 0 for state in states) / len(states)
        assert latent.density == pytest.approx(counted) and card.density == pytest.approx(counted)
    for table in (ranked.table.head(3), cards.table):
        assert list(table["density (fraction of tokens)"]) == pytest.approx(
            [latent.density for latent in list(ranked)[:3]]
        )
    assert ranked.check.tokens == len(states) == cards[ranked.ids[0]].n_tokens
    assert ranked.check.explained_variance == pytest.approx(explained_variance(sae, states), rel=1e-4)
    assert (
        any("less than 0.50" in line for line in ranked.check.warnings)
        and "less than 0.50" in ranked._repr_html_()
    )


def test_within_contexts_a_latent_that_reads_the_question_is_nothing_and_one_that_reads_the_text_is_all(
    monkeypatch,
):
    """Made-up rows: y = what the question does (large) + what the text does; latent 5 has the first, latent 7 the second."""
    sae, g = planted_sae(), torch.Generator().manual_seed(0)
    question = torch.randn(50, generator=g).repeat_interleave(4) * 3
    text = torch.randn(200, generator=g)
    axes = [torch.nn.functional.normalize(sae.W_enc[:, i], dim=0) for i in (5, 7)]
    x = 0.3 * torch.randn(200, 32, generator=g) + question[:, None] * axes[0] + text[:, None] * axes[1]
    ids = tuple(f"c{i // 4}" for i in range(200))
    data = LabelledActivations({1: x}, question + text, ids, ids, (1,) * 200, text > 0, "decision", ids)
    monkeypatch.setattr(ActivationSampler, "labelled", lambda *_: data)
    between, within = (
        rank_latents(random_model(), sae, splits().train, k=40, labels=k) for k in ("choice", "choice_within")
    )
    size = lambda found, latent: abs(next((row.effect_size for row in found if row.latent == latent), 0.0))  # noqa: E731
    assert size(between, 5) > 1 > size(between, 7)
    assert size(within, 7) > 1 > 0.5 > size(within, 5)


def test_the_published_rule_keeps_what_lies_above_the_99th_percentile():
    sae = planted_sae(d_sae=400)
    found = rank_latents(random_model(), sae, splits().train, labels="answer", rule="percentile", n=200)
    data = ActivationSampler(runner_for(random_model()), [1]).labelled(splits().train, "answer", 200)
    z = sae.encode(data.states[1]).numpy()
    difference = z[(data.scores > 0).numpy()].mean(0) - z[(data.scores < 0).numpy()].mean(0)
    expected = np.flatnonzero(np.abs(difference) > np.percentile(np.abs(difference), 99))
    assert sorted(found.ids) == expected.tolist() and len(found) == 4
    np.testing.assert_allclose(
        [found.weights[found.ids.index(i)] for i in expected], difference[expected], atol=1e-5
    )


def test_halves_hold_whole_groups_and_follow_the_seed():
    groups = [f"g{i // 3}" for i in range(30)]
    first, second = group_halves(groups, 0)
    assert (first ^ second).all() and first.sum() == 15
    assert not {g for g, f in zip(groups, first, strict=True) if f} & {
        g for g, f in zip(groups, second, strict=True) if f
    }
    assert not torch.equal(first, group_halves(groups, 1)[0])
    with pytest.raises(UserError, match="at least 2 question groups"):
        group_halves(["a", "a"], 0)


def test_promoted_tokens_are_the_unembeddings_of_the_decoder_row():
    model, sae = random_model(), planted_sae()
    row = sae.W_dec[3]
    logits = (
        (row / row.square().mean().sqrt() * model.ln_final.w) @ model.W_U + model.b_U
        if hasattr(model.ln_final, "w")
        else None
    )
    expected = [model.tokenizer.decode([i]).strip() for i in logits.topk(3).indices.tolist()]
    assert promoted(runner_for(model), sae, 3) == ", ".join(expected)


def test_json_goes_round_and_shows_itself(ranked):
    again = LatentRanking.from_file(
        LatentsFile.from_json(json.loads(json.dumps(ranked.to_file().to_json(), allow_nan=False)))
    )
    assert again == ranked and again.weights == ranked.weights
    assert (
        list(ranked.table["latent"]) == ranked.ids
        and "<table" in ranked._repr_html_()
        and "6 latents of planted" in repr(ranked)
    )
    with pytest.raises(UserError, match="without its SAE"):
        again[0].objective()


def test_objectives_of_latents_read_the_model(ranked):
    model, sae = random_model(), planted_sae()
    contexts = make_contexts(model, splits().search, n=3)
    readout = read(runner_for(model), ranked.objective(sae), contexts, None)
    z = sae.encode(readout.resid[sae.site])
    expected = sum(w * z[:, i] for i, w in zip(ranked.ids, ranked.weights, strict=True))
    torch.testing.assert_close(ranked.objective(sae).raw(readout), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        ranked[0].objective().raw(readout), z[:, ranked[0].latent], atol=1e-5, rtol=1e-5
    )


def test_a_probe_for_the_card_has_the_models_own_choices():
    parts = splits()
    probe = persona_probe(random_model(), 1, parts.train, parts.search, n=60)
    assert probe.x.shape == probe.held_out_x.shape == (60, 32) and 0 < probe.shown.mean() < 1
    assert not torch.equal(probe.x, probe.held_out_x)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"k": 0}, "k of at least 1"), ({"rule": "magic"}, "'magic'"), ({"labels": "magic"}, "unknown labels")],
)
def test_wrong_arguments_are_told(arguments, says):
    with pytest.raises(UserError, match=says):
        rank_latents(random_model(), planted_sae(), splits().train, **arguments)


def test_an_sae_of_another_width_or_hook_is_refused():
    module = StandardSAE(
        StandardSAEConfig(d_in=16, d_sae=8, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_post"))
    )
    with pytest.raises(UserError, match="width 16: this model has width 32"):
        rank_latents(random_model(), Sae("small", Site(1), module), splits().train)
    module = StandardSAE(
        StandardSAEConfig(d_in=32, d_sae=8, metadata=SAEMetadata(hook_name="blocks.1.hook_mlp_out"))
    )
    with pytest.raises(UserError, match="resid_post"):
        rank_latents(random_model(), Sae("mlp", Site(1, "mlp_out"), module), splits().train)
