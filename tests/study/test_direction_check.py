"""`persona check --directions`: refused exactly when a study stops, with the same scan to the bit; data refusals that need no model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.refused_commands import refused
from workbench import cli
from workbench.errors import UserError
from workbench.personas import Persona, check_persona, load_persona
from workbench.runs import RunDirectory, write_run_file
from workbench.study.context import StudyContext
from workbench.study.direction_check import add_directions
from workbench.study.persona_model_check import NOT_SCANNED, check_on_model
from workbench.study.stages.directions import DirectionsStage
from workbench.study.study_settings import Study

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


def written(path: Path, persona: Persona, exchange: bool = False, texts: int = 24) -> Path:
    """The persona as a file of one's own; with `exchange` the two answers of whole groups are exchanged at random."""
    rng = np.random.default_rng(0)
    exchanged = {group: exchange and bool(rng.integers(2)) for group in persona.group_sizes}
    rows = [
        dict(zip(("matching", "not_matching"), sides[:: -1 if exchanged[item.group] else 1], strict=True))
        | {"question": item.question, "group": item.group}
        for item in persona.items
        for sides in [(item.matching, item.not_matching)]
    ]
    content = {
        "name": "mine",
        "metric": "text",
        "data": rows,
        "manual_prompts": {sign: list(prompts) for sign, prompts in persona.manual_prompts.items()},
        "varied_system_texts": list(persona.varied_system_texts[:texts]),
    }
    path.write_text(yaml.safe_dump(content))
    return path


def stage_of_a_run(file: Path, model, directory: Path) -> str:
    """What the directions stage of a run with default settings writes to direction.json; it raises an error where the run stops."""
    study = Study(persona=str(file), sae="none")
    context = StudyContext.begin(study, RunDirectory.create(directory), model)
    with context.rendering():
        DirectionsStage().compute(context)
    return context.directory.file("direction.json").read_text()


def test_a_direction_that_a_run_finds_is_found_by_the_check_to_the_bit(organism, tmp_path):
    file = written(tmp_path / "mine.yaml", load_persona("sycophancy"))
    persona = load_persona(str(file))
    found = add_directions(check_on_model(organism, persona, n=6), organism, persona)
    assert not found.refusals and NOT_SCANNED not in found.notes and found.scan.verdict in found.notes
    write_run_file(tmp_path / "own.json", found.scan.to_file())
    assert stage_of_a_run(file, organism, tmp_path / "run") == (tmp_path / "own.json").read_text()
    assert found.table.iloc[-1].tolist()[:2] == ["direction shown", "yes"]


def test_labels_without_meaning_are_refused_by_the_check_and_by_the_run(
    organism, tmp_path, capsys, monkeypatch
):
    file = written(tmp_path / "mine.yaml", load_persona("sycophancy"), exchange=True)
    with pytest.raises(UserError, match="no direction shown for mine") as stopped:
        stage_of_a_run(file, organism, tmp_path / "run")
    monkeypatch.setattr("workbench.models.load_model", lambda *rest: organism)
    said = refused(
        ["persona", "check", str(file), "--model", "organism", "--directions"], capsys, monkeypatch
    )
    assert said.endswith(f"run would refuse this persona on organism: {stopped.value}")


def test_without_the_option_the_check_says_what_it_did_not_test(organism, tmp_path, capsys, monkeypatch):
    persona = load_persona("sycophancy")
    found = check_on_model(organism, persona, n=6)
    assert found.notes[-1] == NOT_SCANNED and "--directions" in NOT_SCANNED
    refused_already = replace(found, refusals=("too few",))
    assert NOT_SCANNED not in refused_already.notes
    assert add_directions(refused_already, organism, persona) is refused_already
    assert "needs --model" in refused(["persona", "check", "sycophancy", "--directions"], capsys, monkeypatch)


@pytest.mark.parametrize("texts", [0, 7, 8])
def test_too_few_varied_texts_are_refused_without_a_model(texts, tmp_path, capsys, monkeypatch):
    file = written(tmp_path / "mine.yaml", load_persona("sycophancy"), texts=texts)
    checked, words = (
        check_persona(load_persona(str(file))),
        f"{texts} varied system texts: at least 8 are needed",
    )
    if texts == 8:
        assert not checked.refusals
        monkeypatch.setattr("sys.argv", ["workbench", "persona", "check", str(file)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code and "would refuse" not in capsys.readouterr().out
        return
    assert any(words in note and note.startswith("run would refuse") for note in checked.notes)
    said = refused(["persona", "check", str(file)], capsys, monkeypatch)
    assert "run would refuse this persona" in said and words in said


def test_groups_that_cannot_be_split_are_refused_without_a_model():
    persona = load_persona("sycophancy")
    one = replace(persona, items=tuple(replace(item, group="one") for item in persona.items))
    checked = check_persona(one)
    assert len(checked.refusals) == 1 and "needs at least 4 groups" in checked.refusals[0]
    assert sum("needs at least 4 groups" in note for note in checked.notes) == 1
