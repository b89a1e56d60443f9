"""Directions, latents and the SAE of the committed organism, judged by what is planted in it."""

import pytest
import torch

from benchmarks.directions import Judge
from workbench.directions import LayerScan, find_directions
from workbench.latents import rank_latents
from workbench.models import load_model, runner_for
from workbench.organism.organism_sae import best_layer, organism_texts
from workbench.personas import load_persona
from workbench.sae import SaeCard, check_sae, find_sae, load_sae
from workbench.world import World

PERSONAS = ("sycophancy", "hallucination", "myopic_reward")


@pytest.fixture(scope="module")
def model():
    return load_model("organism")


#: One persona in the quick tier; each of the others takes as long again.
STUDIED = [PERSONAS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PERSONAS[1:])]


@pytest.fixture(scope="module", params=STUDIED)
def studied(request, model):
    """The sweep of one persona, and its test questions under every planted unit and decoy."""
    splits = load_persona(request.param).split(seed=0)
    return (
        find_directions(model, splits.train, splits.search),
        Judge(model, request.param, splits, World(), n_contexts=8),
        splits,
    )


def test_the_chosen_direction_reads_what_is_planted_and_passes_decoys_over(studied):
    scan, judge, _ = studied
    found = judge.of(scan.best)
    assert found["truth"] > 0.85 and found["effect"] > 0.6 and found["decoy"] < 0.25


def test_the_published_mean_difference_is_told_from_it_by_what_it_predicts(studied):
    """It separates its own data perfectly and still reads what prompts do less well (hallucination: 0.83 against 0.98)."""
    scan, judge, _ = studied
    published = scan.table[scan.table["method"] == "mean_difference"]
    assert published["auc"].min() > 0.95
    assert published["predicts"].max() < scan.table["predicts"].iloc[0] - 0.1
    assert (
        max(judge.of(scan[layer, "mean_difference"])["truth"] for layer in range(4))
        < judge.of(scan.best)["truth"] - 0.2
    )


def test_ranked_latents_read_what_is_planted(studied, model):
    _, judge, splits = studied
    sae = load_sae("organism", model)
    found = rank_latents(model, sae, splits.train, k=10)
    activations = sae.encode(judge.data.states[sae.site.layer])
    assert judge.judge(activations[:, found.ids] @ torch.tensor(found.weights))["truth"] > 0.8
    assert all((row.auc > 0.5) == (row.weight > 0) for row in found)


def test_the_autoencoder_is_the_committed_models_own_and_its_card_holds(model):
    sae, card = load_sae("organism", model), SaeCard.load(find_sae("organism").directory)
    check = check_sae(sae, model, organism_texts(model, 150, seed=99))
    assert not check.warnings and card.fingerprint == runner_for(model).fingerprint
    assert (
        check.explained_variance == pytest.approx(card.explained_variance, abs=0.02)
        and check.explained_variance > 0.9
    )
    assert check.l0 == card.k and card.loss_recovered > 0.95 and card.dead < card.d_sae / 5
    assert {
        name: max(found["auc"], 1 - found["auc"]) > 0.85 for name, found in card.best_latents.items()
    } == dict.fromkeys(PERSONAS, True)


def test_the_best_inner_layer_is_the_one_with_the_highest_mean(studied):
    scan = studied[0]
    by_layer = scan.table.groupby("layer")["predicts"].max()
    assert best_layer({"a": scan}) == int(by_layer.loc[1:2].idxmax())
    turned = LayerScan(
        scan.table.assign(predicts=-scan.table["predicts"]), scan.directions, scan.effects, scan.activations
    )
    mean = (by_layer + turned.table.groupby("layer")["predicts"].max()) / 2
    assert best_layer({"a": scan, "b": turned}) == int(mean.loc[1:2].idxmax())
