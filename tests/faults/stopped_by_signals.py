"""Signals in every stage of a run: `python -m tests.faults.stopped_by_signals`.

A run of the command line is stopped by SIGINT, SIGTERM or SIGKILL as soon as its log says that a stage has
begun (SIGKILL: after a random time), the seconds until it is gone and its exit code are noted, and it is
resumed: it must end, with the files of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.injected_faults import STUDY, content, whole_files

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


def start(study: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """`workbench run`, in a process group of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "workbench.cli",
        "run",
        str(study),
        "--out",
        str(out),
        *more,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def begun(out: Path) -> list[str]:
    """Names of the stages that the log says have begun."""
    log = out / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["stage"] for event in events if event.get("event") == "begin"]


def stop_at(
    study: Path, out: Path, stage: str, number: signal.Signals, wait: float = 0.0
) -> tuple[float, float, int, str]:
    """(seconds and processor seconds from the signal to the end, exit code, last line on the error output). stage: "" for a random time,
    `wait`."""
    earlier = _processor_seconds()
    process = start(study, out)
    if stage:
        while process.poll() is None and stage not in begun(out):
            time.sleep(0.02)
    else:
        time.sleep(wait)
    begin, used = time.perf_counter(), used_by(process.pid)
    if process.poll() is None:
        os.kill(process.pid, number)
    _, said = process.communicate(timeout=120)
    processor = max(0.0, _processor_seconds() - earlier - used)
    return time.perf_counter() - begin, processor, process.returncode, (said.strip().splitlines() or [""])[-1]


def _processor_seconds() -> float:
    """Of all children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def used_by(pid: int) -> float:
    """Processor seconds of a living process so far."""
    file = Path(f"/proc/{pid}/stat")
    fields = file.read_text().rpartition(")")[2].split() if file.exists() else ["0"] * 15
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Prints a line per stage and signal; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description="Signals in every stage of a run")
    parser.add_argument(
        "--kills",
        type=int,
        default=4,
        help="SIGKILLs at random times, imports included (killed_at_random.py has many)",
    )
    parser.add_argument("--no-resume", action="store_true")
    given, wrong = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as scratch:
        place, rng = Path(scratch), random.Random(0)
        (place / "study.yaml").write_text(STUDY.to_yaml())
        began = time.perf_counter()
        assert start(place / "study.yaml", place / "whole").wait() == 0
        seconds, wanted, stages = (
            time.perf_counter() - began,
            content(place / "whole"),
            begun(place / "whole"),
        )
        plan = [(stage, number, 0.0) for number in (signal.SIGINT, signal.SIGTERM) for stage in stages]
        plan += [("", signal.SIGKILL, rng.uniform(0.3, 1.0) * seconds) for _ in range(given.kills)]
        for stage, number, wait in plan:
            out = place / "run"
            shutil.rmtree(out, ignore_errors=True)
            took, processor, code, line = stop_at(place / "study.yaml", out, stage, number, wait)
            problems = [f"exit code {code}"] if code not in (CODES[number], 0) else []
            problems += (
                ["took longer than 5 s"] if min(took, 2 * processor) > 5 else []
            )  # a busy machine is not the run's fault
            problems += [f"{name} is damaged" for name in (whole_files(out) if out.exists() else [])]
            if not given.no_resume:
                resume = ["--resume"] if (out / "manifest.json").exists() else []
                again = start(place / "study.yaml", out, *resume)
                _, said = again.communicate(timeout=600)
                problems += (
                    [f"resume ends with {again.returncode}: {said[-200:]!r}"] if again.returncode else []
                )
                problems += [] if content(out) == wanted else ["other files after resume"]
            wrong += len(problems)
            when = stage or f"after {wait:.1f} s"
            times = f"{took:.2f} s ({processor:.2f} processor seconds)"
            print(
                f"{number.name} {when}: {times}, exit code {code}, {line[:90]!r} {problems or ''}", flush=True
            )
    print(f"{len(plan)} signals, {wrong} things went wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
