"""A direction is shown where one was planted, and not where labels, texts or vectors mean nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.contexts import make_contexts
from workbench.directions.activation_sampling import ActivationSampler
from workbench.directions.site_gates import LEAST, SiteGates, association_p, labels_p
from workbench.models import runner_for
from workbench.personas import load_persona

TEXTS, GROUPS, SITES = 12, 10, 6


def planted(seed: int, strength: float = 1.0, labels: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Readings [site, text] of which site 2 is what moves the answer, and effects [text, group]; without labels each group's sign is a coin's."""
    rng = np.random.default_rng(seed)
    readings = rng.normal(size=(SITES, TEXTS))
    signs = np.ones(GROUPS) if labels else rng.choice((-1.0, 1.0), GROUPS)
    effects = strength * readings[2][:, None] * signs + rng.normal(size=(TEXTS, GROUPS))
    return readings, effects


def table(auc: float = 0.9, cosine: float = 0.9) -> pd.DataFrame:
    return pd.DataFrame({"auc": [auc] * SITES, "split_cosine": [cosine] * SITES})


def test_the_planted_site_passes_and_no_other():
    passed = SiteGates().judge(table(), *planted(0, 3.0))["passes"]
    assert passed.tolist() == [False, False, True, False, False, False]


def test_p_values_are_those_of_the_whole_permutation():
    """With few texts and groups every permutation and every turn of signs can be listed."""
    from itertools import permutations, product

    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    readings, effects = rng.normal(size=(2, 5)), rng.normal(size=(5, 5))
    mean = effects.mean(axis=1)
    highest = [
        max(spearmanr(row, mean[list(order)]).statistic for row in readings)
        for order in permutations(range(5))
    ]
    wanted = [
        np.mean([high >= spearmanr(row, mean).statistic - 1e-9 for high in highest]) for row in readings
    ]
    np.testing.assert_allclose(association_p(readings, mean, 20_000, 0), wanted, atol=0.015)
    covariance = np.array([[np.cov(row, effects[:, g])[0, 1] for g in range(5)] for row in readings])
    size = np.sqrt((covariance**2).sum(axis=1))
    turned = [max((covariance * signs).sum(axis=1) / size) for signs in product((-1, 1), repeat=5)]
    wanted = [np.mean([t >= s - 1e-9 for t in turned]) for s in covariance.sum(axis=1) / size]
    np.testing.assert_allclose(labels_p(readings, effects, 20_000, 0), wanted, atol=0.015)


def test_at_most_five_percent_of_what_means_nothing_passes():
    """300 data sets each: labels of no meaning though texts move the answer; and readings that have nothing to do with the effects."""
    no_labels = [
        SiteGates(draws=400).judge(table(), *planted(seed, 3.0, labels=False), seed)["passes"].any()
        for seed in range(300)
    ]
    unrelated = []
    for seed in range(300):
        readings, _ = planted(seed)
        _, effects = planted(seed + 1000, 3.0)
        unrelated.append(SiteGates(draws=400).judge(table(), readings, effects, seed)["passes"].any())
    for found in (no_labels, unrelated):  # 5 % of 300 is 15; 27 or more would have a chance of 0.2 %
        assert sum(found) < 27


def test_power_grows_with_the_planted_strength():
    shown = [
        np.mean(
            [SiteGates(draws=400).judge(table(), *planted(seed, s), seed)["passes"][2] for seed in range(40)]
        )
        for s in (0.0, 0.3, 1.0)
    ]
    assert shown[0] <= 0.1 < shown[2] and shown[0] <= shown[1] <= shown[2] and shown[2] > 0.9


@pytest.mark.parametrize(
    ("auc", "cosine", "scale", "words"),
    [
        (0.5, 0.9, 1.0, "highest AUC 0.50, 0.6 needed"),
        (0.9, -0.2, 1.0, "together"),
        (0.9, 0.9, 1e-3, "hardly move the answer"),
    ],
)
def test_each_requirement_is_named(auc, cosine, scale, words):
    readings, effects = planted(0, 3.0)
    judged = SiteGates().judge(table(auc, cosine), readings, scale * effects)
    assert not judged["passes"].any()
    assert words in SiteGates().why_not(judged, scale * effects.mean(axis=1).std(ddof=1))


def test_too_few_texts_or_groups_are_not_tested():
    readings, effects = planted(0, 3.0)
    for judged in (
        SiteGates().judge(table(), readings[:, : LEAST - 1], effects[: LEAST - 1]),
        SiteGates().judge(table(), readings, effects[:, :4]),
    ):
        assert judged["p_labels"].isna().all() and not judged["passes"].any()


def test_rows_are_as_many_as_asked(organism):
    """16 answer rows of a text persona are 16 (they were 8), and of a letter persona too."""
    runner = runner_for(organism)
    for name in ("sycophancy", "myopic_reward"):
        split = load_persona(name).split(0).train
        draw = ActivationSampler(runner, [1])
        assert len(draw.labelled(split, "answer", 16)) == 16, split.persona.metric
        assert len(draw.labelled(split, "choice", 16)) == 16
        assert len(make_contexts(runner, split, n=4)) in (4, 8)


def test_a_study_stops_where_no_direction_is_shown_unless_told_to_go_on(organism):
    """Labels that mean nothing: every other question's answers are exchanged, so that no direction can be right for both halves."""
    from dataclasses import replace

    from workbench.directions import find_directions
    from workbench.errors import UserError
    from workbench.study.stages.directions import stop_without_direction
    from workbench.study.study_settings import DirectionSettings, Study

    persona = load_persona("sycophancy")
    groups = {name: i % 2 for i, name in enumerate(sorted(persona.group_sizes))}

    def exchanged(item):
        return (
            replace(item, matching=item.not_matching, not_matching=item.matching, responses=None)
            if groups[item.group]
            else item
        )

    splits = replace(persona, items=tuple(map(exchanged, persona.items))).split(0)
    found = find_directions(
        organism, splits.train, splits.search, n=96, n_texts=12, n_contexts=12, methods=["own_choice"]
    )
    assert found.shown is False and found.verdict.startswith("no direction shown for sycophancy: ")
    assert found.to_file().shown is False and found.to_file().verdict == found.verdict
    with pytest.raises(UserError, match=r"no direction shown.*directions.unshown to go_on"):
        stop_without_direction(Study(), found)
    stop_without_direction(Study(directions=DirectionSettings(unshown="go_on")), found)
    whole = persona.split(0)
    shown = find_directions(
        organism, whole.train, whole.search, n=96, n_texts=12, n_contexts=12, methods=["own_choice"]
    )
    assert shown.shown and shown.verdict.startswith("direction shown: sycophancy own_choice")
    stop_without_direction(Study(), shown)
    few = find_directions(
        organism, whole.train, whole.search, n=32, n_texts=4, n_contexts=4, methods=["own_choice"]
    )
    assert few.shown is None and "not tested" in few.verdict
    stop_without_direction(Study(), few)
