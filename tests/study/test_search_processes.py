"""A study's searches in two processes: the bits of one process, whatever happens to the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.support.run_bytes import bytes_without_times
from tests.support.tiny_study import TINY
from workbench.budget import Budget
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.search import Checkpoint
from workbench.search.scored_prompts import ScoredPrompts
from workbench.search.search_progress import SearchProgress, progress_from, progress_to
from workbench.study import search_processes
from workbench.study.context import StudyContext
from workbench.study.search_division import Division
from workbench.study.search_processes import SearchProcesses

STUDY = TINY.model_copy(update={"conditions": (*TINY.conditions, "answer_objective", "random_search")})
SEARCHES = ["search resga", "search saega", "search answer_objective", "search random_search"]
#: What a process of its own needs to run the study in two processes, as the fixture `divided` does it here.
SCRIPT = """
import sys, torch
from tests.study.test_search_processes import wait_for_the_other
from workbench.cli import main
from workbench.study import search_processes
torch.set_num_threads(2)
search_processes.WORTH_STARTING = 0.0
search_processes.SearchProcesses._report = wait_for_the_other
main()
"""


def wait_for_the_other(self: SearchProcesses, stage: str, share: float) -> None:
    """`_report`, but the first search goes on only once another process has one too: these are too short to wait by themselves."""
    _REPORT(self, stage, share)
    while self._processes and not self._processes[0].stage and not self._outer.directory.done(SEARCHES[1]):
        if self._processes[0]._process.poll() is not None:
            return
        time.sleep(0.05)
        self._listen()


_REPORT = SearchProcesses._report


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, and no search too short for another process."""
    monkeypatch.setattr(search_processes, "WORTH_STARTING", 0.0)
    monkeypatch.setattr(SearchProcesses, "_report", wait_for_the_other)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same study, all searches in this process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    torch.set_num_threads(2)
    kept, search_processes.WORTH_STARTING = search_processes.WORTH_STARTING, 1e9
    try:
        wb.run(STUDY, out)
    finally:
        torch.set_num_threads(1)
        search_processes.WORTH_STARTING = kept
    assert computed_elsewhere(out) == []
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    """The run's bytes without times; its log names processes."""
    return {
        name: data
        for name, data in bytes_without_times(out).items()
        if name not in ("log.jsonl", "timings.json")
    }


def computed_elsewhere(out: Path) -> list[str]:
    """Searches that another process finished."""
    return [e["stage"] for e in RunDirectory.open(out).read_log() if e["event"] == "done" and "process" in e]


def ended(out: Path) -> list[str]:
    """Why other processes ended, where they ended early."""
    return [e["reason"] for e in RunDirectory.open(out).read_log() if e["event"] == "search process ended"]


def is_alive(pid: int) -> bool:
    """Does the process exist, other than as a zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def others(out: Path) -> list[int]:
    """Process ids of the others that have begun a search."""
    return [
        e["process"] for e in RunDirectory.open(out).read_log() if e["event"] == "begin" and "process" in e
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((2, 6, 1.0, 10.0), (2, 1)),
        ((16, 6, 1.0, 100.0), (6, 2)),
        ((1, 6, 1.0, 10.0), (1, 1)),
        ((8, 1, 1.0, 10.0), (1, 8)),
        ((8, 6, 3.0, 10.0), (2, 4)),  # 80 % of 10 is room for two of 3
        ((8, 6, 4.1, 10.0), (1, 8)),
        ((8, 6, 90.0, 10.0), (1, 8)),
    ],
)
def test_threads_and_memory_are_divided(
    given: tuple[int, int, float, float], wanted: tuple[int, int]
) -> None:
    found = Division.of(*given)
    assert (found.processes, found.threads) == wanted


def test_progress_is_the_same_after_it_was_plain_data() -> None:
    frontier = ScoredPrompts(
        torch.tensor([[3, 1], [2, -1]]), torch.tensor([0.1, -torch.inf]), torch.tensor([2.0, torch.inf])
    )
    progress = SearchProgress(3, 0.5, 0.1, 2.0, 11.0, 40.0, 2.5, None, frontier)
    found = progress_from(json.loads(json.dumps(progress_to(progress))))
    assert {k: v for k, v in vars(found).items() if k != "frontier"} == {
        k: v for k, v in vars(progress).items() if k != "frontier"
    }
    for name in ("ids", "objective", "cross_entropy"):
        assert torch.equal(getattr(found.frontier, name), getattr(frontier, name))


def test_two_processes_leave_the_bytes_of_one(divided: None, alone: dict[str, bytes], tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    wb.run(STUDY, tmp_path / "run", report=lambda stage, share: seen.append((stage, share)))
    assert computed_elsewhere(tmp_path / "run"), "the other process did nothing"
    assert files(tmp_path / "run") == alone
    other = computed_elsewhere(tmp_path / "run")[0]
    assert (other, 0.0) in seen and any(stage == other and 0 < share < 1 for stage, share in seen)
    assert torch.get_num_threads() == 2


def test_what_a_killed_process_leaves_is_computed_here(
    divided: None, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, killed = tmp_path / "run", []

    def kill(stage: str, share: float) -> None:
        if not killed and out.exists() and (pids := others(out)):
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    wb.run(STUDY, out, report=kill)
    assert ended(out) == ["exit code -9"] and files(out) == alone


def test_an_error_in_the_other_process_ends_the_run_and_can_be_resumed(
    divided: None, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "run"

    runner = wb.runner_for(wb.load_model("organism"))
    questions = wb.make_contexts(runner, wb.load_persona("sycophancy").split(seed=0).search, n=2)

    def disturb(stage: str, share: float) -> None:
        if stage == SEARCHES[0] and share == 0.0:  # the second search is the other process's
            place = RunDirectory.open(out).file("search/saega.checkpoint.safetensors")
            goal, method = wb.answer_log_odds(), wb.RandomSearch(length=2)
            wb.search(runner, goal, questions, method, Budget(steps=1), checkpoint=Checkpoint(place, every=1))

    with pytest.raises(UserError, match="a checkpoint of another search"):
        wb.run(STUDY, out, report=disturb)
    assert not any(map(is_alive, others(out)))
    (out / "search" / "saega.checkpoint.safetensors").unlink()
    wb.run(STUDY, out, resume=True)
    assert files(out) == alone


def test_a_process_that_finds_other_inputs_computes_nothing(
    divided: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDY.model_copy(update={"conditions": ("resga", "random_search")})
    start = SearchProcesses._start

    def changed(self: SearchProcesses) -> None:
        self._outer.directory.note(hashes={"persona": "0" * 64})
        start(self)

    monkeypatch.setattr(SearchProcesses, "_start", changed)
    wb.run(study, tmp_path / "run")
    assert computed_elsewhere(tmp_path / "run") == []
    assert ended(tmp_path / "run")[0].endswith("changed while the run goes on: persona")


@pytest.mark.parametrize("why", ["given", "seconds", "memory", "thread"])
def test_one_process_where_two_are_not_possible(
    why: str, organism: Any, divided: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDY.model_copy(update={"conditions": ("resga", "random_search")})
    if why == "seconds":
        budget = Budget(steps=3, seconds=600)
        study = study.model_copy(update={"search": study.search.model_copy(update={"budget": budget})})
    if why == "memory":
        monkeypatch.setattr(search_processes, "machine_memory", lambda: 1_000_000_000)
    if why == "thread":
        torch.set_num_threads(1)
    context = StudyContext.begin(
        study, RunDirectory.create(tmp_path / "run"), organism if why == "given" else None
    )
    division, _ = search_processes._division(context, [None, None])  # type: ignore[list-item]
    assert division == Division(1, torch.get_num_threads())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_both_processes_and_the_run_can_be_resumed(
    number: signal.Signals, code: int, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, study = tmp_path / "run", tmp_path / "study.yaml"
    study.write_text(STUDY.to_yaml())

    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, "run", str(study), "--out", str(out), *more]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    process = start()
    wait_until(lambda: (out / "manifest.json").exists() and bool(others(out)))
    pids = others(out)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in said
    wait_until(lambda: not any(map(is_alive, pids)), seconds=5)
    again = start("--resume")
    assert again.wait(timeout=600) == 0
    assert files(out) == alone


def wait_until(true: Callable[[], bool], seconds: float = 300.0) -> None:
    """Looks until it is true; fails after some seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
