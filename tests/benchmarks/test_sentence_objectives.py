"""What searches may know of the questions: sampled answers, and labelled questions of both answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.sentence_objectives import SampledAnswers, summary
from workbench.runs import write_json


class KnownScores:
    """A readout whose answers have given log-odds."""

    def __init__(self, log_odds: list[float]) -> None:
        self.log_odds = torch.tensor(log_odds)

    def answer_scores(self, _: object) -> torch.Tensor:
        return self.log_odds


@pytest.mark.parametrize("log_odds", [-2.0, 0.0, 1.5])
def test_many_sampled_answers_give_the_log_odds_and_one_gives_its_sign(log_odds):
    many = SampledAnswers(20_000, torch.Generator().manual_seed(0))
    assert float(many.score(KnownScores([log_odds]))[0]) == pytest.approx(log_odds, abs=0.06)
    one = SampledAnswers(1, torch.Generator().manual_seed(0)).score(KnownScores([log_odds] * 4000))
    assert one.abs().tolist() == pytest.approx([float(np.log(3))] * 4000, abs=1e-5)
    matching = float((one > 0).float().mean())
    assert matching == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=0.03)


def test_two_draws_of_one_prompt_differ():
    objective = SampledAnswers(4, torch.Generator().manual_seed(1))
    scores = [objective.score(KnownScores([0.0] * 50)).tolist() for _ in range(2)]
    assert scores[0] != scores[1]


def test_a_refused_search_is_a_row_of_the_table(tmp_path):
    entry = {"schema": 1, "model": "smollm2-personas", "persona": "hallucination", "known": "direction 2"}
    write_json(tmp_path / "a.json", entry | {"seed": 1, "refused": "too few"})
    done = {"effects": [-1.0, -2.0], "groups": ["a", "b"], "prompt": "Be wary.", "cpu_seconds": 2.0}
    write_json(tmp_path / "b.json", entry | {"seed": 2} | done)
    (row,) = summary(tmp_path)["rows"]
    assert (row["seeds"], row["effect"], row["refused"]) == (2, -1.5, ["too few"])
    assert row["each"] == [{"effect": -1.5, "prompt": "Be wary."}]
