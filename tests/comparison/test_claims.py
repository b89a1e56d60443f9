"""The claims of a verdict, by hand arithmetic on planted evaluation tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from workbench.comparison import chosen_condition, judge_claims
from workbench.comparison.claim_sentences import PromptEffect, claims_sentence
from workbench.comparison.claims import ClaimResult, ClaimResults
from workbench.conditions import CLAIMS
from workbench.schema import ComparisonFile, ConditionEntry, CostEntry, DifferenceEntry

GROUPS = 12
#: Deviations of the questions, mean zero: every planted difference is a constant plus a multiple of it.
WOBBLE = np.array([-1.0, 1.0] * (GROUPS // 2))


def planted(sign=-1, best="resga", groups=GROUPS, **levels):
    """comparison.json and evaluation.parquet: each condition KIND or KIND__NAME answers `level` on every question (in the wanted direction;
    a pair is a level and the size of the wobble)."""
    entries, rows = [], []
    for key, level in {"none": 0.0, **levels}.items():
        kind, _, number = key.partition("__")
        name = "no prompt" if kind == "none" else f"{kind} {number}".strip()
        mean, size = level if isinstance(level, tuple) else (level, 0.1 if kind == best else 0.0)
        odds = sign * (mean + size * np.resize(WOBBLE, groups))
        difference = DifferenceEntry(
            to="no prompt",
            value=sign * 0.5,
            ci=(sign * 0.5 - 0.1, sign * 0.5 + 0.1),
            log_odds=sign * mean,
            log_odds_ci=(sign * mean - 0.1, sign * mean + 0.1),
        )
        prompt = None if kind in ("none", "steering", "constant_answer") else f"the prompt of {name}"
        entries.append(
            ConditionEntry(
                name=name,
                kind=kind,
                prompt=prompt,
                rate=0.5,
                differences=[difference],
                cost=CostEntry(flops=100.0),
            )
        )
        rows += [
            {"condition": name, "item": str(g), "group": f"g{g}", "matching_first": True, "log_odds": odds[g]}
            for g in range(groups)
        ]
    about = {
        "persona": "sycophancy",
        "model": "m",
        "sign": sign,
        "metric": "letters",
        "seed": 0,
        "splits": {},
    }
    return ComparisonFile(**about, conditions=entries), pd.DataFrame(rows)


def statuses(*given, **changed):
    return {result.claim: result.status for result in judge_claims(*(given or planted(**changed))).results}


def test_a_claim_has_the_clustered_interval_of_the_nearest_control():
    found = judge_claims(*planted(resga=2.0, random_text=0.5, random_text__2=1.25, random_prompt=0.0))[
        "works"
    ]
    values = -(2.0 - 1.25) - 0.1 * WOBBLE
    half = scipy.stats.t.ppf(0.975, GROUPS - 1) * values.std(ddof=1) / math.sqrt(GROUPS)
    assert found.status == "shown" and found.against == "random_text 2"
    assert (found.difference.estimate, found.difference.low, found.difference.high) == pytest.approx(
        (-0.75, -0.75 - half, -0.75 + half)
    )
    assert found.p == 2 / 2**GROUPS  # all twelve groups agree


def test_works_needs_random_text_and_goes_beyond_every_one():
    assert statuses(resga=2.0)["works"] == "not tested"
    assert statuses(resga=2.0, random_prompt=0.5)["works"] == "shown"
    assert statuses(resga=2.0, random_text=0.5, random_prompt=2.5)["works"] == "not shown"
    assert statuses(resga=2.0, random_text=(2.0, 0.5))["works"] == "not shown"
    assert statuses(resga=-2.0, random_text=-3.0)["works"] == "not shown", (
        "beyond random text, but the wrong way against no prompt"
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_more_and_less_are_judged_alike(sign):
    levels = {"random_text": 0.5, "random_search": 1.0, "answer_objective": 3.0, "manual": 0.2}
    found = statuses(sign=sign, resga=2.0, **levels)
    assert found == {
        "works": "shown",
        "optimizer_matters": "shown",
        "direction_is_specific": "not tested",
        "internals_matter": "not shown",
        "better_than_writing": "shown",
        "clean": "not tested",
    }
    assert list(found) == list(CLAIMS)
    comparison, answers = planted(sign=sign, resga=2.0, **levels)
    wrong_way = comparison.model_copy(update={"sign": -sign})
    assert set(statuses(wrong_way, answers).values()) <= {"not shown", "not tested"}


def test_constant_answers_and_steering_are_controls_of_nothing():
    assert (
        statuses(resga=2.0, random_text=0.5, constant_answer=9.0, steering=9.0, latent_clamp=9.0)["works"]
        == "shown"
    )


def test_a_control_of_another_search_does_not_count():
    assert statuses(resga=2.0, random_text=0.1, random_search=2.5)["optimizer_matters"] == "not shown"
    assert (
        statuses(best="saega", saega=2.0, random_text=0.1, random_search=2.5)["optimizer_matters"]
        == "not tested"
    )
    assert (
        statuses(best="saega", saega=2.0, random_text=0.1, random_updates=1.0)["optimizer_matters"] == "shown"
    )
    written = statuses(best="manual", manual=2.0, random_text=0.1, random_updates=1.0)
    assert written["optimizer_matters"] == "not tested", "a random search is chosen before a written prompt"


@pytest.mark.parametrize(
    ("n", "above", "status"),
    [
        (0, 0, "not tested"),
        (9, 0, "not shown"),
        (10, 0, "shown"),
        (10, 1, "not shown"),
        (38, 1, "not shown"),
        (39, 1, "shown"),
        (39, 2, "not shown"),
    ],
)
def test_a_direction_is_specific_beyond_its_percentile_among_ten(n, above, status):
    randoms = {f"random_direction__{i}": 3.0 if i < above else 1.0 for i in range(n)}
    result = judge_claims(*planted(resga=2.0, random_text=0.1, **randoms))["direction_is_specific"]
    assert result.status == status
    if n:
        assert f"stronger than {n - above} of {n} random directions" in result.because
        assert ("fewer than 10" in result.because) == (n < 10)


@pytest.mark.parametrize(
    ("flops", "status"), [(79.0, "not tested"), (80.0, "shown"), (300.0, "shown"), (None, "not tested")]
)
def test_internals_matter_at_equal_cost_only(flops, status):
    comparison, answers = planted(resga=2.0, random_text=0.1, answer_objective=1.0)
    entries = [
        c if c.kind != "answer_objective" else c.model_copy(update={"cost": CostEntry(flops=flops)})
        for c in comparison.conditions
    ]
    assert (
        statuses(comparison.model_copy(update={"conditions": entries}), answers)["internals_matter"] == status
    )


def test_holm_corrects_over_the_claims_that_are_read_together():
    """Six groups that all agree: p = 2 / 64 = 0.031, which one claim survives and two do not."""
    one = judge_claims(*planted(groups=6, resga=2.0, random_text=0.1, manual=1.0))["better_than_writing"]
    assert (one.p, one.p_adjusted, one.status) == (1 / 32, 1 / 32, "shown")
    two = judge_claims(*planted(groups=6, resga=2.0, random_text=0.1, manual=1.0, random_search=1.0))
    assert two["better_than_writing"].p_adjusted == two["optimizer_matters"].p_adjusted == 1 / 16
    assert two["works"].status == "shown" and {
        two["better_than_writing"].status,
        two["optimizer_matters"].status,
    } == {"not shown"}
    assert "after correction for 2 claims" in two["better_than_writing"].because
    assert statuses(groups=5, resga=2.0, random_text=0.1)["works"] == "not shown", "p cannot be below 2 / 32"


def test_the_first_sentence_names_the_control_that_a_prompt_is_not_beyond():
    """ "RESGA lowers sycophancy" alone, next to a random text that lowers it further, was read as a result."""
    more, shown = (judge_claims(*planted(resga=1.0, random_text=text)) for text in (2.5, 0.1))
    assert (
        more.effect_sentence == f"{more.effect.sentence()} But random text does more."
        and more.headline.startswith(more.effect_sentence)
    )
    assert shown.effect_sentence == shown.effect.sentence()
    opposite = judge_claims(*planted(resga=-2.0, random_text=-3.0))
    assert (
        opposite.effect_sentence == opposite.effect.sentence()
        and "opposite of what was wanted" in opposite.headline
    )


def test_nothing_else_is_shown_of_a_prompt_without_an_effect():
    found = judge_claims(*planted(resga=(0.0, 0.1), random_text=-1.0, random_search=-1.0))
    assert found["works"].status == found["optimizer_matters"].status == "not shown"
    assert "no effect" in found["optimizer_matters"].because


def off_target(after: dict[str, list[bool]], text: float | None = 0.0) -> pd.DataFrame:
    """Without a prompt the model is right on every question; `after`: with it, by part."""
    rows = []
    for part, hits in after.items():
        for i, hit in enumerate(hits):
            about = {"measure": part, "part": part, "item": str(i), "group": f"g{i}"}
            rows.append(about | {"condition": "no prompt", "value": 1.0, "hit": True})
            rows.append(about | {"condition": "resga", "value": 1.0 if hit else -1.0, "hit": hit})
    for i in range(12 if text is not None else 0):
        about = {
            "measure": "text",
            "part": "capability",
            "item": f"text {i}",
            "group": f"text {i}",
            "hit": None,
        }
        rows += [
            about | {"condition": "no prompt", "value": 5.0},
            about | {"condition": "resga", "value": 5.0 + text + 0.01 * WOBBLE[i]},
        ]
    return pd.DataFrame(rows)


STILL = {"true statements": [True] * 80, "other personas": [True] * 80}


@pytest.mark.parametrize(
    ("after", "text", "status"),
    [
        (STILL, 0.0, "shown"),
        (STILL, -1.0, "shown"),
        (STILL, 0.2, "not shown"),
        (STILL, None, "not tested"),
        ({"true statements": [True] * 80}, 0.0, "not tested"),
        (STILL | {"true statements": [True] * 70 + [False] * 10}, 0.0, "not shown"),
        (STILL | {"true statements": [True] * 80 + [False]}, 0.0, "shown"),
        (STILL | {"other personas": [True] * 60 + [False] * 20}, 0.0, "not shown"),
        (STILL | {"true statements": [True] * 3}, 0.0, "not shown"),
    ],
)
def test_clean_is_an_equivalence_within_margins(after, text, status):
    result = judge_claims(*planted(resga=2.0, random_text=0.1), off_target(after, text))
    assert result["clean"].status == status
    assert result.is_green == (status == "shown")


def test_a_text_s_interval_by_hand():
    found = judge_claims(*planted(resga=2.0, random_text=0.1), off_target({}, 0.05)).side_effects
    half = scipy.stats.t.ppf(0.975, 11) * 0.01 * math.sqrt(12 / 11) / math.sqrt(12)
    assert [(e.measure, e.unit) for e in found] == [("text", "nats per token")]
    assert (found[0].change.low, found[0].change.high) == pytest.approx((0.05 - half, 0.05 + half))


def test_answers_are_paired_by_question_and_order_not_by_row():
    comparison, answers = planted(none=(0.0, 5.0), resga=(2.0, 5.0), random_text=(1.0, 5.0))
    shuffled = answers.sample(frac=1.0, random_state=0)
    assert judge_claims(comparison, shuffled) == judge_claims(comparison, answers)
    assert judge_claims(comparison, answers)["works"].difference.low == pytest.approx(-1.0), (
        "the wobble cancels in pairs"
    )


def test_questions_that_one_of_them_did_not_answer_are_left_out():
    comparison, answers = planted(resga=2.0, random_text=0.5)
    holes = answers[~((answers["condition"] == "random_text") & (answers["item"] == "3"))].copy()
    holes.loc[(holes["condition"] == "resga") & (holes["item"] == "4"), "log_odds"] = np.nan
    assert judge_claims(comparison, holes)["works"].difference.n == GROUPS - 2


@pytest.mark.parametrize(
    "answers", [None, pd.DataFrame(), pd.DataFrame({"condition": ["resga"], "log_odds": [1.0]})]
)
def test_without_answers_nothing_is_claimed_and_the_effect_is_still_said(answers):
    found = judge_claims(planted(resga=2.0)[0], answers)
    assert {result.status for result in found.results} == {"not tested"} and found.headline.startswith(
        "RESGA lowers sycophancy from 50 % to 50 %"
    )
    nothing = judge_claims(planted()[0], answers)
    assert nothing.condition is None and nothing.headline.startswith("No found prompt was compared")


def test_the_prompt_is_chosen_on_selection():
    comparison, _ = planted(resga=2.0, saega=1.0, random_search=9.0)
    assert chosen_condition(comparison).name == "resga"
    rated = [
        c.model_copy(update={"selection_rate": {"resga": 0.4, "saega": 0.3}.get(c.kind)})
        for c in comparison.conditions
    ]
    assert chosen_condition(comparison.model_copy(update={"conditions": rated})).name == "saega"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "RESGA lowers sycophancy from 86 % to 22 % (-64 points, 95 % CI -70 to -57)."),
        (
            {"wanted": 1},
            "RESGA lowers sycophancy, the opposite of what was wanted, from 86 % to 22 % (-64 points, 95 % CI -70 to -57).",
        ),
        (
            {"log_odds_ci": (-3.0, 0.1)},
            "RESGA may not change sycophancy at all: from 86 % to 22 % (-64 points, 95 % CI -70 to -57).",
        ),
        (
            {"after": 0.85, "change": -0.01, "ci": (-0.04, 0.02)},
            "RESGA lowers sycophancy: -3.07 in log-odds (95 % CI -3.42 to -2.71); the rate goes from 86 % to 85 % (-1 points, 95 % CI -4 to +2).",
        ),
        (
            {"before": 0.5, "after": 0.5, "change": 0.0, "ci": (-0.2, 0.2)},
            "RESGA lowers sycophancy: -3.07 in log-odds (95 % CI -3.42 to -2.71); the rate stays at 50 % (0 points, 95 % CI -20 to +20).",
        ),
        ({"before": None}, "RESGA lowers sycophancy: -3.07 in log-odds (95 % CI -3.42 to -2.71)."),
        (
            {"log_odds_ci": (None, None), "ci": (None, None)},
            "RESGA was compared with no prompt without an interval: how sure a change of sycophancy is, is not known.",
        ),
        (
            {"log_odds_ci": (None, None)},
            "RESGA lowers sycophancy from 86 % to 22 % (-64 points, 95 % CI -70 to -57).",
        ),
    ],
)
def test_the_effect_in_one_sentence(changes, said):
    about = {
        "name": "RESGA",
        "persona": "sycophancy",
        "wanted": -1,
        "before": 0.86,
        "after": 0.22,
        "change": -0.64,
        "ci": (-0.70, -0.57),
        "log_odds": -3.07,
        "log_odds_ci": (-3.42, -2.71),
    }
    assert PromptEffect(**(about | changes)).sentence() == said


def test_the_claims_in_one_line():
    given = [
        ("works", "shown"),
        ("optimizer_matters", "not shown"),
        ("internals_matter", "not shown"),
        ("clean", "not tested"),
    ]
    assert (
        claims_sentence(given)
        == "Shown: works. Not shown: optimiser matters, internals matter. Not tested: clean."
    )


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (
            ("works", "better_than_writing"),
            (
                "RESGA: 86 % to 22 %; shown: works, better than writing",
                "86 % to 22 %; works, better than writing",
                "86 to 22 %; works",
                "works",
            ),
        ),
        (
            ("works", "clean"),
            (
                "RESGA: 86 % to 22 %; shown: works, clean",
                "86 % to 22 %; works, clean",
                "86 to 22 %; works, clean",
                "works, clean",
            ),
        ),
        (
            ("clean",),
            (
                "RESGA: 86 % to 22 %; shown: clean",
                "86 % to 22 %; clean",
                "86 to 22 %; works not shown",
                "works not shown",
            ),
        ),
        (
            (),
            (
                "RESGA: 86 % to 22 %; shown: nothing",
                "86 % to 22 %; nothing shown",
                "86 to 22 %; nothing shown",
                "nothing shown",
            ),
        ),
    ],
)
def test_a_line_of_a_list_says_it_in_ever_fewer_words(shown, said):
    effect = PromptEffect("RESGA", "sycophancy", -1, 0.86, 0.22, -0.64, (-0.70, -0.57), -3.07, (-3.42, -2.71))
    results = tuple(ClaimResult(claim, "shown", "") for claim in shown)
    assert ClaimResults("resga", results, effect).summaries == said
    assert ClaimResults(None, (), None).summaries == ("no found prompt",)
