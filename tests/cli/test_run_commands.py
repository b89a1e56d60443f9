"""`workbench runs`, `open` and `watch` on runs that the program made, whole, half finished and broken."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from tests.support.tiny_study import TINY
from workbench.cli import run_commands
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.schema import ProgressFile
from workbench.study import run
from workbench.study.progress_file import ProgressRecorder


@pytest.fixture(scope="module")
def finished(organism, tmp_path_factory):
    return run(TINY, tmp_path_factory.mktemp("runs") / "whole", model=organism).path


def test_every_run_has_a_line_also_a_broken_one(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(finished, tmp_path / "deep" / "whole")
    shutil.copytree(finished, tmp_path / "half", ignore=shutil.ignore_patterns("comparison.json"))
    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken" / "comparison.json").write_text("[1, ")
    (tmp_path / "no run").mkdir()
    run_commands.runs(tmp_path, as_json=True)
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"deep/whole", "half", "broken"}
    assert rows["deep/whole"]["persona"] == "sycophancy" and "shown:" in rows["deep/whole"]["verdict"]
    assert "--resume" in rows["half"]["verdict"] and rows["broken"]["verdict"].startswith("cannot be read")
    with pytest.raises(UserError, match="no run in"):
        run_commands.runs(tmp_path / "no run")
    with pytest.raises(UserError, match="expected a folder"):
        run_commands.runs(tmp_path / "nowhere")


def test_a_finished_study_leaves_no_progress_and_watching_it_ends(finished, capsys):
    assert not (finished / "progress.json").exists()
    run_commands.watch(finished, once=True)
    printed = capsys.readouterr().out
    assert ("directions" in printed and "done" in printed and "Shown:" in printed) or "Not tested:" in printed
    run_commands.watch(finished)
    assert "report" in capsys.readouterr().out


def test_a_running_search_is_told_with_its_frontier_and_one_that_was_cut_off_says_so(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    recorder = ProgressRecorder(directory)
    recorder._write(ProgressFile(stage="search resga", share=0.25, updated=time.time(), line="step 6", frontier=[{"text": "be \x1b[31mblunt"}]))
    with directory.lock():
        run_commands.watch(directory.path, once=True)
    printed = capsys.readouterr().out
    assert "search RESGA" in printed and "25 %  step 6" in printed and "⟨U+001B⟩[31mblunt" in printed and "no process" not in printed
    run_commands.watch(directory.path, once=True)
    assert "no process writes to this run" in capsys.readouterr().out


def test_a_missing_report_is_written_before_it_is_opened(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    run_commands.open_run(tmp_path / "run")
    assert opened == [(tmp_path / "run" / "report.html").as_uri()] and (tmp_path / "run" / "report.html").is_file()
    assert "no browser" not in capsys.readouterr().out
