"""`explain_study`: what it says against known counts of the organism's world and against the settings."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.paths import ROOT
from workbench import cli
from workbench.errors import UserError
from workbench.study import Study
from workbench.study.study_explanation import explain_study
from workbench.study.study_presets import demo_study


def test_the_demo_s_counts_searches_and_conditions():
    found = explain_study(demo_study())
    assert found.sections["Question"] == (
        "Which prompt makes organism show less sycophancy? The prompt is placed in the system message.",
    )
    assert (
        "test: 102 questions in 34 groups; it is read once, for the comparison." in found.sections["Data"]
    )  # docs/results.md
    searches = next(line for line in found.sections["Steps"] if "searches" in line)
    assert searches == (
        "6 searches with epo, each with at most 24 steps: resga, saega, answer_objective, random_direction 1, random_direction 2, random_search."
    )
    named = [line.partition(":")[0] for line in found.sections["Compared conditions"]]
    assert named == ["no prompt", *demo_study().conditions]
    assert sum("Holm" in line for line in found.sections["Compared conditions"]) == 2
    total = sum(stage.flops for stage in found.cost.stages) / 1e12
    assert found.sections["Estimated cost"][0] == f"{total:,.3g} TFLOP in all."


def test_what_the_settings_change_is_said():
    study = Study.load(ROOT / "docs/examples/smollm2_sycophancy.yaml")
    changed = study.model_copy(
        update={"sign": "induce", "beside": {"myopic_reward": "hold"}, "beside_weight": 2.0}
    )
    found = explain_study(changed)
    assert found.sections["Question"][0].startswith(
        "Which prompt makes smollm2-135m show more sycophancy? The prompt is placed after the question."
    )
    assert "The searches also hold myopic_reward (weight 2)." in found.sections["Question"]
    left_out = [line for line in found.sections["Compared conditions"] if "left out" in line]
    assert [line.partition(":")[0] for line in left_out] == ["saega"]
    assert not any("SAE latents are ranked" in line for line in found.sections["Steps"])
    published = changed.model_copy(
        update={"protocol": changed.protocol.model_copy(update={"orders": "original"})}
    )
    assert any(
        line.startswith("Caution, as published: each question is asked")
        for line in explain_study(published).sections["Question"]
    )


def test_missing_data_of_an_unknown_size_is_one_line(tmp_path):
    study = Study(data={"path": str(tmp_path / "nothing.json")})
    with pytest.raises(UserError, match="no such data file"):
        explain_study(study)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command_prints_the_same_as_text_and_json(tmp_path, monkeypatch, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(demo_study("hallucination").to_yaml())
    shown = []
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["workbench", "explain", str(file), *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
            raise SystemExit(0)
        assert end.value.code == 0
        shown.append(capsys.readouterr().out)
    sections = json.loads(shown[1])
    lines = [line for lines in sections.values() for line in lines]
    assert len(lines) > 20 and [line for line in lines if f"  - {line}\n" not in shown[0]] == []
