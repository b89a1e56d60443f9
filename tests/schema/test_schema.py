"""One model a file: exact when written, forgiving when read, one line for another version."""

from __future__ import annotations

import ast
import json
import math
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

import workbench
from workbench.errors import UserError
from workbench.report import write_report
from workbench.runs import (
    RunDirectory,
    read_run_file,
    read_table,
    salvage_run_file,
    write_json,
    write_run_file,
    write_table,
)
from workbench.schema import (
    ComparisonFile,
    FrontierFile,
    LatentsFile,
    SearchFile,
    SearchStepRow,
    migrated,
    schema_version,
)


def test_no_class_name_is_defined_in_two_files():
    places = defaultdict(set)
    root = Path(workbench.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(path.relative_to(root).as_posix())
    assert len(places) > 200
    assert {name: sorted(found) for name, found in places.items() if len(found) > 1} == {}


def latents() -> LatentsFile:
    return LatentsFile(
        persona="toy",
        sae="s",
        site="blocks.1.hook_resid_post",
        latents=[{"latent": 3, "auc": math.nan, "top": [(0.5, "a text")]}],
    )


def test_a_file_goes_round_and_has_its_version_first(tmp_path):
    write_run_file(tmp_path / "latents.json", latents())
    content = json.loads((tmp_path / "latents.json").read_text())
    assert next(iter(content.items())) == ("schema", 1) and content["latents"][0]["auc"] is None
    assert read_run_file(tmp_path / "latents.json", LatentsFile) == latents()


def test_a_writer_may_not_add_a_key_and_a_reader_passes_over_one(tmp_path):
    with pytest.raises(ValidationError, match="sparse_autoencoder"):
        LatentsFile(sparse_autoencoder="s", latents=[])
    write_json(tmp_path / "latents.json", latents().to_json() | {"from_the_future": 1})
    assert read_run_file(tmp_path / "latents.json", LatentsFile) == latents()


def test_a_field_that_does_not_fit_is_named_or_left_out_where_it_may_be_missing(tmp_path):
    write_json(tmp_path / "latents.json", latents().to_json() | {"site": 3})
    with pytest.raises(UserError, match=r"latents\.json, field site"):
        read_run_file(tmp_path / "latents.json", LatentsFile)
    found, lost = salvage_run_file(tmp_path / "latents.json", LatentsFile)
    assert found.latents == latents().latents and found.site == "" and list(lost) == ["site"]
    write_json(tmp_path / "latents.json", {"schema": 1, "latents": 3})
    with pytest.raises(ValidationError):
        salvage_run_file(tmp_path / "latents.json", LatentsFile)


def test_a_run_of_another_version_is_one_line_that_names_the_version_that_reads_it(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    manifest = run.manifest().to_json()
    manifest |= {"schema": 7, "versions": manifest["versions"] | {"persona-workbench": "3.1.0"}}
    write_json(run.path / "manifest.json", manifest)
    write_json(run.file("search/frontier.json"), {"schema": 7})
    for read in (
        lambda: RunDirectory.open(run.path),
        lambda: write_report(run.path),
        lambda: read_run_file(run.path / "search/frontier.json", FrontierFile),
    ):
        with pytest.raises(
            UserError,
            match=r"schema 1, found 7: this is persona-workbench .*; persona-workbench 3\.1\.0,.* reads it",
        ) as error:
            read()
        assert "\n" not in str(error.value)
    write_json(tmp_path / "comparison.json", {"schema": 2})
    with pytest.raises(UserError, match="a newer persona-workbench reads it"):
        read_run_file(tmp_path / "comparison.json", ComparisonFile)
    write_json(tmp_path / "comparison.json", {"persona": "toy"})
    with pytest.raises(UserError, match="expected schema 1, found None"):
        read_run_file(tmp_path / "comparison.json", ComparisonFile)


def test_a_migration_is_applied_step_by_step(monkeypatch):
    monkeypatch.setattr(schema_version, "SCHEMA", 3)
    monkeypatch.setattr(
        schema_version,
        "MIGRATIONS",
        {1: lambda name, e: {"rows": e["lines"]}, 2: lambda name, e: {"rows": [name, *e["rows"]]}},
    )
    assert migrated("a.json", {"schema": 1, "lines": [1]}, "here") == {"rows": ["a.json", 1], "schema": 3}
    with pytest.raises(UserError, match="an older persona-workbench reads it"):
        migrated("a.json", {"schema": 0}, "here")


def test_tables_have_the_columns_of_their_rows(tmp_path):
    row = SearchStepRow(model_calls=2.0, best_objective=0.5)
    frame = pd.DataFrame([row.model_dump()])
    write_table(tmp_path / "a.parquet", frame, SearchStepRow)
    assert read_table(tmp_path / "a.parquet", SearchStepRow)["best_objective"].tolist() == [0.5]
    with pytest.raises(ValueError, match="expected the columns"):
        write_table(tmp_path / "a.parquet", frame.drop(columns="step"), SearchStepRow)
    frame.rename(columns={"best_cross_entropy": "best_fluency"}).to_parquet(tmp_path / "older.parquet")
    assert "best_cross_entropy" in read_table(tmp_path / "older.parquet", SearchStepRow)
    frame.drop(columns="best_objective").to_parquet(tmp_path / "cut.parquet")
    with pytest.raises(UserError, match="found none named best_objective"):
        read_table(tmp_path / "cut.parquet", SearchStepRow)


def test_half_a_character_in_a_run_s_file_is_one_line(tmp_path):
    file = tmp_path / "comparison.json"
    file.write_text('{"schema": 1, "persona": "\\ud83d", "model": "m", "sign": "suppress", "conditions": []}')
    with pytest.raises(UserError, match="holds U\\+D83D, half of a character"):
        read_run_file(file, ComparisonFile)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_that_no_generator_takes_is_a_field_that_does_not_fit(seed):
    """A report drew sign flips with the -1 of a damaged comparison.json and ended in a traceback."""
    for kind, about in ((ComparisonFile, {"seed"}), (SearchFile, {"seed"})):
        with pytest.raises(ValidationError) as caught:
            kind.model_validate({"schema": 1, "seed": seed})
        assert about <= {error["loc"][0] for error in caught.value.errors()}
        with pytest.raises(ValidationError) as caught:
            kind.model_validate({"schema": 1, "seed": 3, "nothing": 1})
        assert "seed" not in {error["loc"][0] for error in caught.value.errors()}
