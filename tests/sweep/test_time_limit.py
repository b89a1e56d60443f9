"""The limit of a study's time: it raises where the program is, through everything that catches faults, and leaves other alarms alone."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest

from workbench.errors import UserError
from workbench.runs import RunDirectory, read_json
from workbench.sweep import Sweep, sweep, time_limit
from workbench.sweep import study_worker as work
from workbench.sweep.sweep_store import FAILURE
from workbench.sweep.time_limit import TimeLimitReached


def test_it_interrupts_what_catches_every_fault():
    began = time.monotonic()
    with pytest.raises(TimeLimitReached), time_limit.time_limit(0.1):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(30)
    assert time.monotonic() - began < 10


def test_one_that_is_dropped_once_comes_again(monkeypatch):
    monkeypatch.setattr(time_limit, "AGAIN", 0.1)
    dropped = []
    with pytest.raises(TimeLimitReached), time_limit.time_limit(0.1):
        try:
            time.sleep(30)
        except TimeLimitReached:
            dropped.append(1)
        time.sleep(30)
    assert dropped == [1]


def test_what_ends_in_time_leaves_no_alarm_and_an_earlier_one_goes_on():
    earlier = signal.getsignal(signal.SIGALRM)
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    before, _ = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with time_limit.time_limit(60):
            time.sleep(0.4)
            assert not rung
        time.sleep(0.3)
        assert rung == [1]
    finally:
        signal.signal(signal.SIGALRM, earlier)
        signal.setitimer(signal.ITIMER_REAL, before)


def test_in_another_thread_a_look_at_the_clock_raises():
    raised = []

    def work_there() -> None:
        try:
            with time_limit.time_limit(0.05) as check:
                check()
                time.sleep(0.2)
                check()
        except TimeLimitReached:
            raised.append(1)

    thread = threading.Thread(target=work_there)
    thread.start()
    thread.join(10)
    assert raised == [1]


def test_a_study_over_its_limit_is_listed_and_resumed_when_asked(tmp_path: Path, monkeypatch):
    slow = [True]

    def study_run(study, directory, resume, report, model):
        with directory.lock():
            if slow[0] and study.seed == 0:
                time.sleep(60)
            with directory.stage("report"):
                directory.file("report.html").write_text("")

    monkeypatch.setattr(work, "run", study_run)
    monkeypatch.setattr(work, "load_model", lambda *settings: None)
    asked = Sweep(base={"sae": "none", "conditions": ["resga"]}, grid={"seed": (0, 1)}, study_seconds=0.3)
    found = sweep(asked, tmp_path / "out")
    assert [state == "failed" for state in found.studies["state"]] == [True, False]
    assert (
        found.studies["reason"][0]
        == "stopped after study_seconds (0.3 s); --rerun-failed resumes it, give it more seconds then"
    )
    path = tmp_path / "out" / found.studies["run"][0]
    assert (
        "study_seconds" in read_json(path / FAILURE)["reason"]
        and RunDirectory.open(path).manifest().stages == {}
    )
    slow[0] = False
    assert sweep(asked, tmp_path / "out", rerun_failed=True).studies["reason"][0] == ""


@pytest.mark.parametrize("value", ["0", "-1", ".inf", ".nan", "soon", "1e400"])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(UserError, match="field study_seconds"):
        Sweep.from_yaml(f"study_seconds: {value}\ngrid: {{seed: [0]}}")
