"""Two processes of one seed leave equal bytes, but for times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.run_bytes import bytes_without_times
from tests.support.tiny_study import TINY
from workbench.comparison import compare_runs
from workbench.runs import read_timings, write_json
from workbench.study.study_settings import AttributionSettings

STUDY = TINY.model_copy(update={"attribution": AttributionSettings(contexts=2, circuit=3, cards=2)})


def _start(out: Path, hash_seed: str) -> subprocess.Popen[bytes]:
    (out.parent / "study.yaml").write_text(STUDY.to_yaml())
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "workbench.cli",
        "run",
        str(out.parent / "study.yaml"),
        "--out",
        str(out),
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_of_one_seed_leave_equal_bytes(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "other"]
    assert [process.wait() for process in [_start(run, str(n)) for n, run in enumerate(runs)]] == [0, 0]
    first, second = (bytes_without_times(run) for run in runs)
    times = [found.pop("timings.json") for found in (first, second)]
    assert first.keys() == second.keys() and len(first) > 15
    differing = {
        name: sum(a != b for a, b in zip(first[name], second[name], strict=False))
        for name in first
        if first[name] != second[name]
    }
    assert differing == {}
    assert times[0] != times[1], "the clock stood still"


def test_seconds_are_read_from_timings_and_from_runs_made_before(tmp_path: Path) -> None:
    cost = {"token_layers": 1, "flops": 2, "model_calls": 3, "seconds": None}
    change = {"to": "no prompt", "log_odds": -1.0}
    file = {
        "schema": 1,
        "persona": "p",
        "model": "m",
        "sign": "suppress",
        "metric": "text",
        "seed": 0,
        "splits": {"test": {"hash": "h"}},
        "conditions": [
            {"name": name, "kind": "resga", "differences": [change], "cost": cost}
            for name in ("resga", "gcg")
        ],
    }
    write_json(tmp_path / "comparison.json", file)
    write_json(tmp_path / "timings.json", {"schema": 1, "conditions": {"resga": 4.5}})
    for where in (tmp_path, tmp_path / "comparison.json"):
        assert compare_runs([where]).table["seconds"].tolist()[0] == 4.5 and compare_runs([where]).table[
            "seconds"
        ].isna().tolist() == [False, True]
    write_json(
        tmp_path / "comparison.json",
        json.loads(json.dumps(file).replace('"seconds": null', '"seconds": 7.0')),
    )
    assert compare_runs([tmp_path]).table["seconds"].tolist() == [7.0, 7.0]
    (tmp_path / "timings.json").write_text('{"schema": 1, "conditions": 3')
    assert read_timings(tmp_path).conditions == {} and compare_runs([tmp_path]).table["seconds"].tolist() == [
        7.0,
        7.0,
    ]
