"""Objectives of search files in words, from what the searches really write about themselves."""

from __future__ import annotations

import pytest
import torch

from workbench.models import Site
from workbench.objective_words import describe, objective_words
from workbench.objectives import (
    AnswerLogProbObjective,
    ProjectionObjective,
    RepetitionPenalty,
    answer_log_odds,
)

AXIS = ProjectionObjective(torch.ones(4), Site(3))


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (
            -AXIS,
            "minus the projection on the direction at layer 3, in standard deviations over neutral prompts",
        ),
        (
            answer_log_odds() - 0.25 * RepetitionPenalty(),
            "the answer's log-odds minus 0.25 times repetition penalty",
        ),
        (AnswerLogProbObjective(side=1), "the log-probability of the not matching answer"),
    ],
)
def test_what_a_search_writes_is_told_in_words(objective, words):
    assert objective_words(describe(objective)) == words


def test_older_files_and_none_are_told_too():
    assert objective_words("minus the projection") == "minus the projection" and objective_words(None) == ""
    assert (
        objective_words({"type": "Combined", "terms": [[-1.0, {"type": "AnswerLogOdds"}]]})
        == "minus the answer's log-odds"
    )
    with pytest.raises(ValueError, match="its type"):
        objective_words([1])
