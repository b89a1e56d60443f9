"""The two-level bootstrap of the grid of sentences, by hand."""

from __future__ import annotations

import pytest

from benchmarks.sentences import two_level

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
