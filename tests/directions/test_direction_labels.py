"""Permutation test of what data can carry, and directions from few labels: planted truth, exchangeable noise, and laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from tests.support.toy_models import random_model, toy_persona
from workbench.directions import direction_permutation_test as carries
from workbench.directions.direction_permutation_test import LEAST_GROUPS, permutation_p
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


def grouped_pairs(name, signs, axis, rng, items: int = 4, noise: float = 1.0):
    """Pairs of `items` questions per group, whose two answers differ along the axis with the group's sign: (pairs, groups)."""
    groups = [f"{name} {g}" for g in range(len(signs)) for _ in range(items)]
    pairs = torch.from_numpy(rng.normal(size=(len(groups), 2, len(axis))) * noise)
    difference = torch.from_numpy(np.repeat(signs, items)[:, None] * axis)
    return pairs + torch.stack([difference, -difference], dim=1) / 2, groups


def group_p(seed: int, planted: bool, by_item: bool = False, n_train: int = 16, n_test: int = 12) -> float:
    """p of one drawn data set. Labels that mean nothing exchange the two answers of whole groups at random."""
    rng = np.random.default_rng([seed, planted])
    axis = np.eye(6)[0] * 5.0
    sizes = {"train": n_train, "test": n_test}
    signs = {name: np.ones(n) if planted else rng.choice((-1.0, 1.0), size=n) for name, n in sizes.items()}
    (train, train_groups), (test, test_groups) = (
        grouped_pairs(name, sign, axis, rng) for name, sign in signs.items()
    )
    if by_item:
        train_groups, test_groups = (
            [f"{group} {i}" for i, group in enumerate(groups)] for groups in (train_groups, test_groups)
        )
    return permutation_p(train, train_groups, test, test_groups, 39, seed)[1]


def test_labels_that_mean_nothing_are_rejected_as_often_as_the_level_says():
    """Labels exchanged per group at random: 5 % of data sets have p <= 0.05, up to the binomial error of the draws. Exchanged per item,
    the same data have it far too often. A planted direction is found."""
    draws = 200
    rejected = sum(group_p(seed, planted=False) <= 0.05 for seed in range(draws))
    assert binomtest(rejected, draws, 0.05).pvalue > 0.01
    by_item = sum(group_p(seed, planted=False, by_item=True) <= 0.05 for seed in range(50))
    assert binomtest(by_item, 50, 0.05, "greater").pvalue < 1e-6
    assert all(group_p(seed, planted=True) == 1 / 40 for seed in range(10))


def test_with_too_few_held_out_groups_no_p_can_be_small_and_nothing_is_tested(monkeypatch):
    """A perfect direction: only exchanging all held-out groups, or none, gives an AUC as far from one half, 2^(1 - g) of the exchanges."""
    assert np.isnan(group_p(0, planted=True, n_test=5)) and not np.isnan(group_p(0, planted=True, n_test=6))
    rng, axis = np.random.default_rng(0), np.eye(6)[0] * 50.0
    train, train_groups = grouped_pairs("train", np.ones(15), axis, rng)
    monkeypatch.setitem(permutation_p.__globals__, "LEAST_GROUPS", 2)
    for n in (LEAST_GROUPS - 1, LEAST_GROUPS):
        test, test_groups = grouped_pairs("test", np.ones(n), axis, rng)
        found, p, null = permutation_p(train, train_groups, test, test_groups, 2000, 0)
        assert found == 1 and p == (1 + (np.abs(null - 0.5) == 0.5).sum()) / 2001
        least = 2.0 ** (1 - n)
        assert abs(p - least) < 4 * np.sqrt(least / 2000) and (least <= 0.05) == (n == LEAST_GROUPS)


def test_a_persona_is_judged_with_a_model():
    few, model = toy_persona(), random_model()
    asked = [f"{item.question} {word}" for item in few.items for word in ("now", "today", "here")]
    items = tuple(
        replace(few.items[i // 3], id=f"q{i}", question=question, group=f"g{i // 2}")
        for i, question in enumerate(asked)
    )
    persona = replace(few, items=items)
    found = carries(model, persona, 1, permutations=49)
    assert (
        0 <= found.auc <= 1
        and len(found.null) == 49
        and 1 / 50 <= found.p <= 1
        and "held-out AUC" in found.verdict
    )
    splits = persona.split(0)
    assert (found.n_train, found.n_held_out) == (len(splits.train), len(splits.test))
    assert found.n_held_out_groups == splits.test.n_groups >= LEAST_GROUPS
    table = found.added_to(check_persona(persona).table)
    assert table["what"].tolist()[-3:] == ["held-out AUC", "permutation p", "reading and length"]
    assert carries(model, persona, 1, permutations=49).p == found.p
    with pytest.raises(UserError, match="layer 9 does not exist"):
        carries(model, persona, 9)
    untested = carries(model, few, 1, permutations=49)
    assert not untested.tested and untested.verdict.startswith("not tested")
    assert untested.added_to(check_persona(few).table).iloc[-2]["value"] == "not tested"


@pytest.mark.parametrize("difference", [0.05, 0.1, 0.3, 0.9])
def test_groups_needed_are_the_least_that_show_the_difference(difference):
    n = groups_needed_for(difference)
    assert minimum_detectable_effect_from_spread(0.5**0.5, n) <= difference
    assert n == 2 or minimum_detectable_effect_from_spread(0.5**0.5, n - 1) > difference
    with pytest.raises(UserError, match="above 0"):
        groups_needed_for(0.0)
