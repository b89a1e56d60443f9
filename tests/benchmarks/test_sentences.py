"""The grid of sentences: its two-level bootstrap by hand, its aims, and the fresh questions."""

from __future__ import annotations

import pytest

from benchmarks.sentence_fresh_questions import fresh_questions
from benchmarks.sentences import aims, two_level
from workbench.personas import load_persona

ROWS = [[-1.0, -1.0, -1.0, -3.0], [-2.0, -2.0, -2.0, -4.0]]
GROUPS = ["a", "a", "b", "b"]


def test_the_mean_is_over_seeds_and_questions():
    assert two_level(ROWS, GROUPS)[0] == pytest.approx(-2.0)
    mean, low, high = two_level(ROWS, GROUPS, [-1.0] * 4)
    assert mean == pytest.approx(-1.0) and low <= mean <= high


def test_both_matching_answers_weigh_the_same():
    """Three questions with Yes (-1.5 over the seeds), one with No (-3.5)."""
    mean, low, high = two_level(ROWS, GROUPS, matching=["Yes", "Yes", "Yes", "No"])
    assert mean == pytest.approx((-1.5 - 3.5) / 2) and low <= mean <= high


def test_a_draw_without_one_of_the_answers_uses_the_other():
    mean, low, high = two_level([[-1.0, -3.0]], ["a", "b"], matching=["Yes", "No"])
    assert (mean, low, high) == pytest.approx((-2.0, -3.0, -1.0))


@pytest.mark.parametrize("persona", ("hallucination", "myopic_reward", "sycophancy"))
def test_fresh_questions_are_new_and_about_subjects_of_the_test_split_alone(persona):
    """No question of the persona's own, and no subject on which prompts were searched or chosen."""
    own, fresh = load_persona(f"english_{persona}"), fresh_questions(persona)
    splits = own.split(seed=0)
    assert len(fresh) >= 20 and len({item.question for item in fresh.items}) == len(fresh)
    assert not {item.question for item in fresh.items} & {item.question for item in own.items}
    assert set(fresh.groups) <= set(splits.test.groups)
    assert not set(fresh.groups) & {*splits.train.groups, *splits.search.groups, *splits.selection.groups}


def test_the_aims_of_a_grid_that_induces_have_the_opposite_sign():
    row = {
        "model": "m",
        "persona": "p",
        "method": "sentences",
        "effect": 1.0,
        "over_written": 0.2,
        "over_written_low": 0.1,
        "over_written_high": 0.3,
        "cross_entropy": 3.0,
        "cross_entropy_by_base": 3.0,
        "limit": 4.0,
        "limit_by_base": 4.0,
        "truth": 1.0,
        "truth_without": 1.0,
        "each": [{"effect": 1.0}],
    }
    epo = {**row, "method": "epo", "effect": 0.5}
    clear, beyond = "beyond the best written sentence, interval clear of zero", "mean beyond EPO"
    up, down = aims([row, epo], "induce"), aims([row, epo])
    assert up[clear]["cells"] == up[beyond]["cells"] == {"m p": True}
    assert down[clear]["cells"] == down[beyond]["cells"] == {"m p": False}
