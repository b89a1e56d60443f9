"""Permutation test of what data can carry, and directions from few labels: planted truth, exchangeable noise, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tests.support.toy_models import random_model, toy_persona
from workbench.directions import direction_permutation_test as carries
from workbench.directions.direction_permutation_test import permuted
from workbench.directions.direction_quality import cosine
from workbench.directions.methods import mean_difference
from workbench.directions.semi_supervised import principal_axes, semi_supervised
from workbench.errors import UserError
from workbench.personas import check_persona
from workbench.personas.persona_checks import groups_needed_for
from workbench.statistics import minimum_detectable_effect_from_spread


def planted_rows(n: int, d: int = 48, strength: float = 1.5, seed: int = 0):
    """Rows with a known direction that has much variance, among a few strong axes and weak noise: (x, y, truth)."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d, 6, generator=torch.Generator().manual_seed(99)))[0].T
    y = torch.where(torch.rand(n, generator=g) > 0.5, 1.0, -1.0)
    y[:2] = torch.tensor([1.0, -1.0])
    x = (
        torch.randn(n, 5, generator=g) @ axes[1:]
        + strength * y[:, None] * axes[0]
        + 0.5 * torch.randn(n, d, generator=g)
    )
    return x, y, axes[0]


def test_unlabelled_rows_help_where_labels_are_few():
    """Mean cosine with the truth over 20 draws of 6 labels: above the mean difference's, and near it with 400 labels."""
    few, helped = [], []
    for seed in range(20):
        x, y, truth = planted_rows(6, seed=seed)
        rest, _, _ = planted_rows(400, seed=100 + seed)
        few.append(cosine(mean_difference(x, y), truth))
        helped.append(cosine(semi_supervised(x, y, rest), truth))
    assert np.mean(helped) > np.mean(few) + 0.05
    x, y, truth = planted_rows(400)
    assert cosine(semi_supervised(x, y, planted_rows(400, seed=7)[0]), truth) > 0.9


def test_the_sign_follows_the_labels_and_the_length_is_the_distance_of_the_means():
    x, y, _ = planted_rows(40)
    rest, _, _ = planted_rows(100, seed=5)
    one, other = semi_supervised(x, y, rest), semi_supervised(x, -y, rest)
    torch.testing.assert_close(one, -other, atol=1e-4, rtol=1e-4)
    assert float(one.norm()) == pytest.approx(float((one / one.norm()) @ mean_difference(x, y)), rel=1e-4)


def test_it_turns_with_the_space():
    x, y, _ = planted_rows(30)
    rest, _, _ = planted_rows(80, seed=3)
    turn = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(1)))[0]
    assert cosine(semi_supervised(x @ turn, y, rest @ turn), semi_supervised(x, y, rest) @ turn) > 0.999


def test_principal_axes_hold_their_share():
    x = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * torch.arange(10, 0, -1)
    for share in (0.3, 0.8, 1.0):
        axes = principal_axes(x, share)
        centred = x - x.mean(dim=0)
        held = float((centred @ axes.T).square().sum() / centred.square().sum())
        assert held >= share - 1e-5 and len(axes) <= 10
        torch.testing.assert_close(axes @ axes.T, torch.eye(len(axes)), atol=1e-4, rtol=0)


def test_mistakes_are_named():
    x, y, _ = planted_rows(10)
    with pytest.raises(UserError, match="width 3 do not fit labelled ones of width 48"):
        semi_supervised(x, y, torch.zeros(4, 3))
    with pytest.raises(UserError, match="same score"):
        semi_supervised(x, torch.ones(10), x)
    with pytest.raises(UserError, match="found 0, 3"):
        semi_supervised(x, y, x, share=0)


def test_the_permutation_p_is_uniform_under_the_null_and_small_for_a_planted_direction():
    def p(shift: float, seed: int) -> float:
        g = torch.Generator().manual_seed(seed)
        train, test = (torch.randn(24, 2, 6, generator=g) for _ in range(2))
        for pairs in (train, test):
            pairs[:, 0, 0] += shift
        items = [f"i{k // 2}" for k in range(24)]
        null = permuted(train, items, test, items, 60, seed)
        same = permuted(
            train, ["all"] * 24, test, ["all"] * 24, 40, seed
        )  # one item: only two values, the observed AUC among them
        observed = max(same, key=lambda v: abs(v - 0.5)) if shift else same[0]
        return (1 + int((np.abs(null - 0.5) >= abs(observed - 0.5) - 1e-12).sum())) / 61

    found = [p(0.0, seed) for seed in range(60)]
    assert kstest(found, "uniform").pvalue > 0.001 and np.mean(np.array(found) <= 0.1) < 0.25
    assert p(3.0, 1) == pytest.approx(1 / 61)


def test_a_persona_is_judged_with_a_model():
    persona, model = toy_persona(), random_model()
    found = carries(model, persona, 1, permutations=49)
    assert (
        0 <= found.auc <= 1
        and len(found.null) == 49
        and 1 / 50 <= found.p <= 1
        and "held-out AUC" in found.verdict
    )
    table = found.added_to(check_persona(persona).table)
    assert table["what"].tolist()[-3:] == ["held-out AUC", "permutation p", "reading and length"]
    assert carries(model, persona, 1, permutations=49).p == found.p
    with pytest.raises(UserError, match="layer 9 does not exist"):
        carries(model, persona, 9)


@pytest.mark.parametrize("difference", [0.05, 0.1, 0.3, 0.9])
def test_groups_needed_are_the_least_that_show_the_difference(difference):
    n = groups_needed_for(difference)
    assert minimum_detectable_effect_from_spread(0.5**0.5, n) <= difference
    assert n == 2 or minimum_detectable_effect_from_spread(0.5**0.5, n - 1) > difference
    with pytest.raises(UserError, match="above 0"):
        groups_needed_for(0.0)
