"""Statistics against statsmodels, scipy and hand arithmetic, and the laws that any clustered interval obeys."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from workbench.errors import UserError
from workbench.statistics import (
    cluster_interval,
    cluster_moments,
    clusters,
    groups_needed,
    holm,
    minimum_detectable_effect,
    minimum_detectable_effect_from_spread,
    moments,
    over_seeds,
    paired_difference,
    paired_rate_difference,
    rank_correlation,
    rate_interval,
    sign_flip_p,
    tost,
)


def clustered(
    seed: int, groups: int = 10, per_group: int = 6, mean: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(groups), per_group)
    return mean + rng.normal(0, 1, groups)[ids] + rng.normal(0, 1, len(ids)), ids


# --- what a cluster is -------------------------------------------------------------------------------------------------


def test_equal_ids_are_one_cluster_wherever_they_stand() -> None:
    assert clusters(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_a_missing_id_is_refused_and_named(missing: object) -> None:
    with pytest.raises(UserError, match="value 1 has no group id"):
        cluster_interval([1.0, 2.0, 3.0], ["a", missing, "b"])


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="value 2 is inf"):
        cluster_interval([1.0, 2.0, math.inf], ["a", "b", "c"])
    with pytest.raises(UserError, match="one group id for each of 3 values, found 2"):
        cluster_interval([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(UserError, match="non-empty"):
        cluster_interval([], [])


# --- intervals against other people's code -----------------------------------------------------------------------------


def test_equal_clusters_agree_with_statsmodels_cluster_robust_ols() -> None:
    values, ids = clustered(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels uses what pandas deprecates, when it is imported
        from statsmodels.regression.linear_model import OLS
    fit = OLS(values, np.ones(len(values))).fit(
        cov_type="cluster",
        cov_kwds={"groups": ids, "df_correction": True, "use_correction": False},
        use_t=True,
    )
    g = 10
    error = fit.bse[0] * math.sqrt(
        g / (g - 1)
    )  # statsmodels' CR0 with the factor for an intercept: CR2 for equal clusters
    low, high = stats.t.interval(0.95, g - 1, loc=values.mean(), scale=error)
    ours = cluster_interval(values, ids)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)
    assert ours.groups == 10 and ours.n == 60


def test_equal_clusters_agree_with_a_t_interval_of_the_cluster_means() -> None:
    values, ids = clustered(2)
    means = values.reshape(10, 6).mean(axis=1)
    low, high = DescrStatsW(means).tconfint_mean(alpha=0.1)
    ours = cluster_interval(values, ids, level=0.9)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)


def test_unequal_clusters_by_hand() -> None:
    # values 1 | 2 4 | 3 6 6 : mean 22/6; cluster residual sums -16/6, -8/6, 24/6; CR2 divides by 1 - n_g/6
    values, ids = [1.0, 2, 4, 3, 6, 6], [0, 1, 1, 2, 2, 2]
    variance = ((16 / 6) ** 2 / (5 / 6) + (8 / 6) ** 2 / (4 / 6) + (24 / 6) ** 2 / (3 / 6)) / 36
    assert moments(values, ids).standard_error == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert moments(values, ids).mean == pytest.approx(22 / 6)
    assert 1 <= moments(values, ids).df < 2  # below G - 1 because the clusters are unequal


def test_both_orders_of_an_item_bring_no_new_information() -> None:
    values, ids = clustered(3)
    once, twice = cluster_interval(values, ids), cluster_interval(np.tile(values, 2), np.tile(ids, 2))
    assert (once.low, once.high) == pytest.approx((twice.low, twice.high), rel=1e-9)


def test_one_cluster_gives_no_interval() -> None:
    assert cluster_interval([1.0, 2.0], ["a", "a"]).to_json() == [None, None]
    assert rate_interval([1, 0], ["a", "a"]).to_json() == [0.0, 1.0]


def test_rate_of_independent_items_is_wilsons_interval_with_the_t_quantile() -> None:
    hits = np.array([1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1])
    ours = rate_interval(hits, range(12))
    effective = 0.75 * 0.25 / (hits.var(ddof=1) / 12)
    alpha = 2 * stats.norm.sf(stats.t.ppf(0.975, 11))
    assert (ours.low, ours.high) == pytest.approx(
        proportion_confint(0.75 * effective, effective, alpha, "wilson"), rel=1e-9
    )


def test_a_rate_of_one_is_not_certain() -> None:
    ours = rate_interval(np.ones(40), np.repeat(np.arange(8), 5))
    assert ours.estimate == 1.0 and ours.high == pytest.approx(1.0)
    assert ours.low == pytest.approx(
        8 / (8 + stats.t.ppf(0.975, 7) ** 2)
    )  # eight clusters that agree: like 8 of 8, not like 40 of 40


def test_a_rate_needs_hits() -> None:
    with pytest.raises(UserError, match="0 or 1"):
        rate_interval([0.5, 1.0], ["a", "b"])


@pytest.mark.parametrize("kind", ["log_odds", "rate", "difference"])
def test_intervals_cover_at_eight_unequal_groups(kind: str) -> None:
    rng, hit, runs = np.random.default_rng(4), 0, 300
    for _ in range(runs):
        ids = np.repeat(np.arange(8), rng.integers(1, 9, 8))
        base = 2.0 + rng.normal(0, 1, 8)[ids] + rng.normal(0, 1, len(ids))
        other = 2.0 + rng.normal(0, 1, 8)[ids] + rng.normal(0, 1, len(ids))
        if kind == "log_odds":
            interval, truth = cluster_interval(base, ids), 2.0
        elif kind == "rate":
            interval, truth = rate_interval(base > 0, ids), stats.norm.cdf(2 / math.sqrt(2))
        else:
            interval, truth = paired_rate_difference(base > 0, other > 0, ids).interval, 0.0
        hit += interval.low <= truth <= interval.high
    assert 0.92 <= hit / runs <= 1.0


# --- laws --------------------------------------------------------------------------------------------------------------

values_and_ids = st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 5)), min_size=4, max_size=40).filter(
    lambda rows: len({group for _, group in rows}) > 1 and np.ptp([value for value, _ in rows]) > 1e-3
)


@settings(max_examples=60, deadline=None)
@given(values_and_ids, st.randoms(use_true_random=False))
def test_order_and_names_of_clusters_do_not_matter(rows: list[tuple[float, int]], random: object) -> None:
    values, ids = zip(*rows)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    there = cluster_interval([v for v, _ in shuffled], [f"group {g * 7}" for _, g in shuffled])
    here = cluster_interval(values, ids)
    assert (here.low, here.high) == pytest.approx((there.low, there.high), rel=1e-6, abs=1e-6)
    exact = (
        sign_flip_p(values, ids),
        sign_flip_p([v for v, _ in shuffled], [f"group {g}" for _, g in shuffled]),
    )
    assert exact[0] == exact[1]


@settings(max_examples=60, deadline=None)
@given(values_and_ids, st.floats(-20, 20), st.floats(0.1, 10))
def test_shift_and_scale_move_the_interval_with_them(
    rows: list[tuple[float, int]], shift: float, scale: float
) -> None:
    values, ids = np.array([v for v, _ in rows]), [g for _, g in rows]
    here, there = cluster_interval(values, ids), cluster_interval(scale * values + shift, ids)
    assert (there.low, there.high) == pytest.approx(
        (scale * here.low + shift, scale * here.high + shift), rel=1e-5, abs=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_rates_and_their_differences_stay_in_range_and_mirror(rows: list[tuple[bool, bool, int]]) -> None:
    a, b, ids = (np.array(column) for column in zip(*rows))
    rate, mirrored = rate_interval(a, ids), rate_interval(~a, ids)
    assert 0 <= rate.low <= rate.estimate <= rate.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - rate.high, 1 - rate.low), abs=1e-9)
    ab, ba = paired_rate_difference(a, b, ids), paired_rate_difference(b, a, ids)
    assert -1 <= ab.interval.low <= ab.value + 1e-12 and ab.value - 1e-12 <= ab.interval.high <= 1
    assert (ba.interval.low, ba.interval.high) == pytest.approx(
        (-ab.interval.high, -ab.interval.low), abs=1e-9
    )
    assert ab.p == ba.p


# --- paired tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 3, 5, 9])
def test_sign_flip_p_equals_scipys_exact_permutation_test(groups: int) -> None:
    values, ids = clustered(groups, groups, 3)
    sums = values.reshape(groups, 3).sum(axis=1)
    theirs = stats.permutation_test(
        (sums,),
        lambda x, axis: x.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**groups,
    )
    assert sign_flip_p(values, ids) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sampled_p_is_near_the_exact_one_and_depends_on_its_seed_alone() -> None:
    values, ids = clustered(6, 17, 4, mean=0.45)
    sums = values.reshape(17, 4).sum(axis=1)
    exact = stats.permutation_test(
        (sums,), lambda x, axis: x.sum(axis), permutation_type="samples", vectorized=True, n_resamples=2**17
    )
    assert sign_flip_p(values, ids, seed=1) == pytest.approx(
        exact.pvalue, abs=4 * math.sqrt(exact.pvalue / 20_000)
    )
    assert sign_flip_p(values, ids, seed=1) == sign_flip_p(values, ids, seed=1)


def test_four_items_by_hand() -> None:
    result = paired_difference([1.0, 2, 3, 6], [0.0, 0, 0, 0], ["a", "b", "c", "d"])
    assert result.value == 3.0
    assert result.p == result.smallest_p == 2 / 16  # only all-plus and all-minus reach 12
    half = stats.t.ppf(0.975, 3) * math.sqrt(14 / 3 / 4)
    assert (result.interval.low, result.interval.high) == pytest.approx((3 - half, 3 + half))
    assert (
        paired_difference([1.0, 2, 3, 6], [0.0, 0, 0, 12], ["a", "b", "c", "d"]).p == 1.0
    )  # total 0: all patterns reach it


def test_ties_count_although_rounding_breaks_them() -> None:
    assert sign_flip_p([0.1, 0.2, -0.3], ["a", "b", "c"]) == 1.0


def test_a_clear_effect_at_eight_groups_cannot_go_below_its_smallest_p() -> None:
    values, ids = clustered(7, 8, 5, mean=30)
    result = paired_difference(values, np.zeros(40), ids)
    assert result.exact and result.p == result.smallest_p == 0.0078125
    assert holm([result.p] * 15)[0] > 0.05  # Holm over 15 such conditions passes nothing,
    assert groups_needed(15) == 10  # which this minimum says beforehand
    assert 2.0 ** (1 - 10) * 15 <= 0.05 < 2.0 ** (1 - 9) * 15


def test_unpaired_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="found 2 and 3"):
        paired_difference([1, 2], [1, 2, 3], ["a", "b"])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_rate_difference_of_independent_pairs_is_near_mcnemars_world() -> None:
    # 60 items, 20 change from hit to miss, 5 the other way: difference -0.25, a Wald interval is good here
    a = np.array([1] * 20 + [0] * 5 + [1] * 20 + [0] * 15)
    b = np.array([0] * 20 + [1] * 5 + [1] * 20 + [0] * 15)
    ours = paired_rate_difference(b, a, range(60))
    low, high = DescrStatsW((b - a).astype(float)).tconfint_mean()
    assert ours.value == pytest.approx(-0.25)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low, high), abs=0.02)


def test_equal_conditions_differ_by_zero_but_not_with_certainty() -> None:
    hits = np.array([1, 1, 1, 1, 0, 1, 1, 1] * 2)
    result = paired_rate_difference(hits, hits, list(range(8)) * 2)
    assert result.value == 0.0 and result.p == 1.0


def test_a_third_of_nulls_is_not_below_a_third() -> None:
    ps = [sign_flip_p(*clustered(seed, 8, 3, mean=0.0)) for seed in range(300)]
    assert stats.binomtest(sum(p <= 0.05 for p in ps), 300, 0.05, alternative="greater").pvalue > 0.001


# --- power and equivalence ---------------------------------------------------------------------------------------------


def test_detectable_difference_is_detected_at_the_stated_rate() -> None:
    size = minimum_detectable_effect_from_spread(1.0, 12)
    noncentral = stats.nct(11, size * math.sqrt(12))
    critical = stats.t.ppf(0.975, 11)
    assert noncentral.sf(critical) + noncentral.cdf(-critical) == pytest.approx(0.8, abs=1e-4)


def test_detectable_from_data_equals_the_plan_for_equal_clusters() -> None:
    values, ids = clustered(8, 12, 5)
    spread = values.reshape(12, 5).mean(axis=1).std(ddof=1)
    assert minimum_detectable_effect(values, ids) == pytest.approx(
        minimum_detectable_effect_from_spread(spread, 12), rel=1e-9
    )
    assert math.isnan(minimum_detectable_effect([1.0, 2.0], ["a", "a"]))


def test_tost_equals_statsmodels_for_single_values() -> None:
    values = np.random.default_rng(9).normal(0.5, 0.1, 20)
    p, _, _ = DescrStatsW(values).ttost_mean(0.45, 0.55)
    ours = tost(values, range(20), 0.45, 0.55)
    assert ours.p == pytest.approx(p, rel=1e-9)
    inside = ours.interval.low > 0.45 and ours.interval.high < 0.55
    assert ours.equivalent == inside


def test_tost_does_not_call_a_noisy_half_equivalent() -> None:
    assert not tost([0, 1, 1, 0, 1, 0], range(6), 0.4, 0.6).equivalent
    assert tost(
        [0, 1] * 8, np.repeat(np.arange(8), 2), 0.4, 0.6
    ).equivalent  # a constant letter: exactly half in every cluster
    with pytest.raises(UserError, match="low < high"):
        tost([0, 1], [0, 1], 0.6, 0.4)


# --- rank correlation and seeds ----------------------------------------------------------------------------------------


def test_rank_correlation_is_scipys_with_a_sensible_interval() -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    ours = rank_correlation(x, y)
    assert ours.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    theirs = stats.pearsonr(stats.rankdata(x), stats.rankdata(y)).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert math.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).estimate)


def test_clustered_rank_correlation_is_less_sure_than_pairs_taken_as_independent() -> None:
    rng = np.random.default_rng(11)
    ids = np.repeat(np.arange(10), 8)
    x = rng.normal(size=10)[ids] + 0.1 * rng.normal(size=80)
    y = 0.5 * x + rng.normal(size=10)[ids]
    clustered_interval, plain = rank_correlation(x, y, ids), rank_correlation(x, y)
    assert clustered_interval.estimate == plain.estimate
    assert clustered_interval.high - clustered_interval.low > plain.high - plain.low


def test_seeds_are_a_level_of_their_own() -> None:
    spread = over_seeds([0.2, 0.4, 0.3])
    assert spread.interval.estimate == pytest.approx(0.3)
    assert (spread.standard_deviation, spread.smallest, spread.largest) == pytest.approx((0.1, 0.2, 0.4))
    with pytest.raises(UserError, match="at least 2"):
        over_seeds([0.2])


def test_signs_drawn_in_parts_are_the_same_signs(monkeypatch):
    """5,000 question groups would need 800 MB at once."""
    values, groups = np.random.default_rng(0).normal(0.05, 1.0, 90), list(range(90))
    whole = sign_flip_p(values, groups, seed=7)
    monkeypatch.setattr("workbench.statistics.permutation_test.PATTERN_VALUES", 1_000)
    assert sign_flip_p(values, groups, seed=7) == whole


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_degrees_of_freedom_of_many_clusters_need_no_matrix(correlation):
    """Against the covariance written out, for the 301 and more clusters of a large run."""
    sizes = np.random.default_rng(0).integers(1, 9, size=cluster_moments.MANY_CLUSTERS + 1).astype(float)
    share = sizes / sizes.sum()
    maker = np.eye(len(sizes)) - np.outer(share, np.ones(len(sizes)))
    scaled = maker / np.sqrt(1 - share)[:, None]
    covariance = (scaled * (sizes * (1 - correlation) + sizes**2 * correlation)) @ scaled.T
    expected = np.trace(covariance) ** 2 / (covariance**2).sum()
    assert cluster_moments._degrees_of_freedom(sizes, correlation) == pytest.approx(expected, rel=1e-11)
