"""`workbench runs`, `open` and `watch` on runs that the program made, whole, half finished and broken."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len

from tests.support.tiny_study import TINY
from workbench.cli import run_commands
from workbench.cli.run_list import RunLine, print_run_list
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


LONG = "the-third-sweep-over-personas-and-layers/seed-0001-of-the-second-attempt"
VERDICTS = (
    "RESGA: 86 % to 22 %; shown: works, optimiser matters, clean",
    "86 to 22 %; works, clean",
    "works, clean",
)
UNFINISHED = ("not finished (directions done): continue with --resume", "not finished")
RUNS = [
    RunLine("demo", "sycophancy", "organism", VERDICTS, "2026-11-30 10:04"),
    RunLine(
        "b\x1b[31m\n\u202e\u4e2d\u6587", "myopic reward", "smollm2-personas", UNFINISHED, "2026-11-30 11:00"
    ),
]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("name", ["short", LONG])
def test_a_run_is_one_line_at_every_width_and_what_is_left_out_is_said(capsys, monkeypatch, width, name):
    monkeypatch.setenv("COLUMNS", str(width))
    print_run_list([*RUNS, replace(RUNS[0], run=name)])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "persona", "model", "verdict", "date"] and all(
        cell_len(line) <= width for line in [head, *lines[:3]]
    )
    assert [line[: head.index("persona")].strip()[:4] for line in lines[:3]] == ["demo", "b⟨U+", name[:4]]
    assert (
        all(line.rstrip().endswith(("2026-11-30", "10:04", "11:00")) for line in lines[:3])
        and "clean" in lines[0]
    )
    assert "organism" in lines[0] and ("smollm2-personas" in lines[1] or "…" in lines[1])
    whole = (
        name in lines[2]
        and "optimiser matters" in lines[0]
        and "--resume" in lines[1]
        and "10:04" in lines[0]
    )
    assert len(lines) == (3 if whole else 4) and whole == (width == 200)
    assert whole or "--json" in lines[3]
    shown = lines[2].split()[0]
    assert shown == name or (
        "…" in shown and name.startswith(shown.split("…")[0]) and name.endswith(shown.split("…")[1])
    ), "a cut is marked"


def test_a_finished_study_leaves_no_progress_and_watching_it_ends(finished, capsys):
    assert not (finished / "progress.json").exists()
    run_commands.watch(finished, once=True)
    printed = capsys.readouterr().out
    assert ("directions" in printed and "done" in printed and "Shown:" in printed) or "Not tested:" in printed
    run_commands.watch(finished)
    assert "report" in capsys.readouterr().out


def test_half_a_run_is_said_to_be_one(finished, tmp_path, capsys):
    shutil.copytree(
        finished, tmp_path / "half", ignore=shutil.ignore_patterns("comparison.json", "report.html")
    )
    run_commands.watch(tmp_path / "half", once=True)
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "not finished, and no process writes to this run: continue with --resume"
    )


def test_a_running_search_is_told_with_its_frontier_and_one_that_was_cut_off_says_so(
    finished, tmp_path, capsys
):
    shutil.copytree(finished, tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    recorder = ProgressRecorder(directory)
    recorder._write(
        ProgressFile(
            stage="search resga",
            share=0.25,
            updated=time.time(),
            line="step 6",
            frontier=[{"text": "be \x1b[31mblunt"}],
        )
    )
    with directory.lock():
        run_commands.watch(directory.path, once=True)
    printed = capsys.readouterr().out
    assert (
        "search RESGA" in printed
        and "25 %  step 6" in printed
        and "⟨U+001B⟩[31mblunt" in printed
        and "no process" not in printed
    )
    run_commands.watch(directory.path, once=True)
    assert "no process writes to this run" in capsys.readouterr().out


def test_a_missing_report_is_written_before_it_is_opened(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    run_commands.open_run(tmp_path / "run")
    assert (
        opened == [(tmp_path / "run" / "report.html").as_uri()]
        and (tmp_path / "run" / "report.html").is_file()
    )
    assert "no browser" not in capsys.readouterr().out
