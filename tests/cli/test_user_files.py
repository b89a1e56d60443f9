"""Files that a user begins with `workbench init`, and the published JSON schemas of study, sweep and persona files."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.paths import ROOT
from workbench import cli
from workbench.cli.file_schemas import file_schemas
from workbench.errors import UserError
from workbench.study import Study
from workbench.study.study_presets import demo_study
from workbench.study.study_template import study_template
from workbench.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


def run(arguments: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    "study",
    [
        Study(),
        demo_study("hallucination", "induce", 3),
        demo_study("english_hallucination"),
        Study(metric="text", beside={"x: y": "hold"}),
    ],
)
def test_a_template_is_the_study_with_a_comment_on_every_setting(study: Study):
    text = study_template(study)
    assert Study.from_yaml(text) == study
    lines = text.splitlines()
    settings = [i for i, line in enumerate(lines) if line and not line.strip().startswith("#")]
    assert len(settings) > 60
    assert [lines[i] for i in settings if not lines[i - 1].strip().startswith("#")] == []
    assert max(len(line) for line in lines if line.strip().startswith("#")) <= 110


def test_init_writes_a_file_that_loads_and_never_overwrites(tmp_path, monkeypatch, capsys):
    target = tmp_path / "mine.yaml"
    assert (
        run(
            [
                "init",
                str(target),
                "--persona",
                "hallucination",
                "--sign",
                "induce",
                "--model",
                "smollm2-personas",
            ],
            monkeypatch,
        )
        == 0
    )
    study = Study.load(target)
    assert (study.name, study.persona, study.sign, study.model.name) == (
        "mine",
        "hallucination",
        "induce",
        "smollm2-personas",
    )
    assert run(["init", str(target)], monkeypatch) == 2
    assert capsys.readouterr().err == f"workbench: {target} exists: give another name\n"
    assert run(["init", str(tmp_path / "no" / "x.yaml")], monkeypatch) == 2


@pytest.mark.parametrize("kind", ["study", "sweep", "persona"])
def test_the_published_schema_is_the_one_of_the_code(kind: str, monkeypatch, capsys):
    published = json.loads((ROOT / f"docs/schemas/{kind}.schema.json").read_text())
    assert published == file_schemas()[kind], "run `make schemas`"
    Draft202012Validator.check_schema(published)
    assert run(["schema", kind], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == published


def fields_without_description(schema: dict) -> list[str]:
    parts = {"": schema} | schema.get("$defs", {})
    return [
        f"{part}.{name}"
        for part, content in parts.items()
        for name, field in content.get("properties", {}).items()
        if not field.get("description") and "$ref" not in field
    ]


@pytest.mark.parametrize("kind", ["study", "sweep", "persona"])
def test_every_field_of_a_schema_has_a_description(kind: str):
    assert fields_without_description(file_schemas()[kind]) == []


def test_a_schema_accepts_our_examples_and_refuses_what_the_reader_refuses():
    study, sweep = (Draft202012Validator(file_schemas()[kind]) for kind in ("study", "sweep"))
    examples = sorted((ROOT / "docs/examples").glob("*.yaml"))
    assert len(examples) > 4
    for file in examples:
        check = sweep if file.name.startswith("sweep") else study
        assert list(check.iter_errors(yaml.safe_load(file.read_text()))) == [], file
    for wrong in (
        {"sgin": "suppress"},
        {"sign": "less"},
        {"conditions": ["resag"]},
        {"search": {"contexts": 0}},
    ):
        with pytest.raises(UserError):
            Study.of(wrong)
        assert list(study.iter_errors(wrong)), wrong
    with pytest.raises(UserError):
        Sweep.from_yaml("grids: {}")
    assert list(sweep.iter_errors({"grids": {}}))


def test_every_command_that_prints_a_table_prints_json_too():
    from workbench.cli import app

    names = [name for name in app if not name.startswith("-")]
    commands = {
        f"{name} {sub}".strip(): (app[name][sub] if sub else app[name])
        for name in names
        for sub in _subcommands(app[name])
    }
    without = {
        name
        for name, command in commands.items()
        if not any(
            "--json" in argument.names
            for argument in command.assemble_argument_collection(parse_docstring=True)
        )
    }
    assert len(commands) > 15
    assert without == {
        "init",
        "schema",
        "report",
        "organism corpus",
        "figures",
        "open",
        "watch",
    }  # they write files, JSON alone, or no table


def _subcommands(command) -> list[str]:
    return [name for name in command if not name.startswith("-")] or [""]
