"""Sweeps of small studies of the organism: the sweep's overhead, what a second worker gives, what a lost one costs.

1. `one`: all studies by `workbench.study.run_study`, and all by a sweep with one worker in the same process,
   in turns, `repeats` times. Overhead: processor seconds of the one over those of the other, less one
   (processor time, because other work runs at the same time).
2. `fresh`: all studies by a sweep of one worker in a new process, which like every worker loads its libraries
   and its model itself.
3. `two`: the same studies by two Ray workers of one thread. Speed-up: seconds from the first study's begin to
   the last one's end, one worker's (`fresh`) over two's; and where the workers' time went (`_workers`).
4. `bare`: two processes without Ray, half of the studies each: what this machine gives to two of them at
   best.
5. `killed`: the same, while three times a random worker is killed (SIGKILL) in the middle of its study. Every
   study must be there once with the results of the undisturbed run; repeated: seconds of stages that a kill
   cut off, over the seconds of all stages.
6. `cluster`: two nodes of one CPU each (Ray's local test cluster); one is taken away while it works.

    python -m benchmarks.sweep --out benchmarks/latest/sweep.json [--studies 8] [--repeats 2] [--phases one
    fresh two bare killed cluster]

`fresh`, `two` and `bare` are run in turn, `repeats` times. Ratios only: seconds depend on what else the
machine does. Nothing listens on anything but loopback.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.models import load_model
from workbench.runs import RunDirectory, write_json, write_text
from workbench.study import Study, run
from workbench.sweep import Sweep, sweep
from workbench.sweep.ray_cluster import START_SECONDS, start_patiently
from workbench.sweep.resolve_studies import plan
from workbench.sweep.run_sweep import FILE
from workbench.sweep.study_worker import StudyWorker
from workbench.sweep.sweep_store import look

KILLS = 3
#: Phases that are run in turn.
TURNED = ("fresh", "two", "bare")
SMALL = {
    "data": {"train_items": 24, "search_items": 6, "selection_items": 6, "test_items": 12},
    "directions": {"layers": [1], "methods": ["mean_difference"], "rows": 16, "texts": 4, "contexts": 2},
    "search": {
        "options": {"length": 4, "population": 3, "children": 6, "top_k": 32},
        "budget": {"steps": 8},
        "contexts": 3,
        "neutral": 4,
    },
    "conditions": ["resga"],
    "primary": ["resga"],
    "sae": "none",
    "random_directions": 0,
    "attribution": {"contexts": 2, "estimators": ["gradient_x_input"]},
}
SAME = ["study", "condition", "rate", "log_odds", "shift", "shift_low", "shift_high", "prompt"]


def studies(n: int) -> Sweep:
    """n studies: three personas, both signs, as many seeds as it takes."""
    grid = {
        "persona": ("sycophancy", "hallucination", "myopic_reward"),
        "sign": ("suppress", "induce"),
        "seed": tuple(range(-(-n // 6))),
    }
    listed = [dict(v.varied) for v in Sweep(base=SMALL, grid=grid).expand()]
    return Sweep(name="bench", base=SMALL, studies=tuple(sorted(listed, key=lambda s: s["seed"])[:n]))


def one_worker(asked: Sweep, place: Path, repeats: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """All studies alone, then all by a sweep of one worker in this process (or the other way round), in processor seconds, the loading
    of the model counted in neither; and the undisturbed results."""
    torch.set_num_threads(1)
    load_model("organism")  # the first one imports the libraries
    begun = time.process_time()
    model = load_model("organism")
    loading = time.process_time() - begun
    planned, spent, expected = plan(asked.expand()), [], pd.DataFrame()
    run(planned[0].study, place / "warm", model=model)  # the first study imports what its stages need
    for repeat in range(repeats):
        ways: list[tuple[str, Callable[[Path], Any]]] = [
            ("alone", lambda to: [run(p.study, to / p.key, model=model) for p in planned]),
            ("swept", lambda to: sweep(asked, to, threads=1)),
        ]
        used = {}
        for name, way in ways[:: 1 if repeat % 2 else -1]:
            begun = time.process_time()
            found = way(place / f"{name} {repeat}")
            used[name] = time.process_time() - begun
            if name == "swept":
                expected = _figures(found.results)
        spent.append((used["swept"] - loading, used["alone"]))
    ratios = [swept / alone - 1 for swept, alone in spent]
    extra = [(swept - alone) / len(planned) for swept, alone in spent]
    facts = {
        "span": _span(place / "swept 0"),
        "repeats": repeats,
        "cpu_seconds_a_study_alone": spent[0][1] / len(planned),
    }
    return facts | {"overhead": _spread(ratios), "overhead_cpu_seconds_a_study": _spread(extra)}, expected


def workers(asked: Sweep, place: Path, kill: bool, seed: int = 0) -> tuple[dict[str, Any], pd.DataFrame]:
    """Two workers; with `kill`, three are killed at random moments."""
    with _killer(place, seed) if kill else _nothing() as killed:
        found = sweep(asked, place, workers=2, threads=1)
    facts = {
        "span": _span(place),
        "states": found.counts,
        "killed": len(killed),
        **_workers(place),
        **_repeated(place),
    }
    return facts, _figures(found.results)


def processes(asked: Sweep, place: Path, n: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """n new processes without Ray, which take the studies in turn; each loads its own libraries and model."""
    planned = plan(asked.expand())
    place.mkdir(parents=True)
    write_text(place / FILE, asked.to_yaml())
    context = multiprocessing.get_context("spawn")
    made = [
        context.Process(target=_work, args=(place, [(p.key, p.study) for p in planned[i::n]]))
        for i in range(n)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join()
    found = sweep(asked, place, threads=1)  # everything is done: it only reads
    return {"span": _span(place), "states": found.counts, **_workers(place)}, _figures(found.results)


def _work(place: Path, todo: list[tuple[str, Study]]) -> None:
    worker = StudyWorker(threads=1)
    for key, study in todo:
        worker.run(place, key, study, lambda *_: None)


def cluster(asked: Sweep, place: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Two nodes on this machine; the second is removed as soon as it has begun a study."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only
    import ray
    from ray.cluster_utils import Cluster

    here = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    made = Cluster()
    try:
        start_patiently(lambda: made.add_node(num_cpus=1, include_dashboard=False, **here), made.shutdown)
        second = start_patiently(lambda: made.add_node(num_cpus=1, wait=False, **here), lambda: None)
        made.wait_for_nodes(timeout=START_SECONDS)
        remover = threading.Thread(
            target=_when_two_begun,
            args=(place, lambda: made.remove_node(second, allow_graceful=False)),
            daemon=True,
        )
        remover.start()
        found = sweep(asked, place, workers=2, address=made.address, threads=1)
        remover.join(1)
    finally:
        ray.shutdown()
        made.shutdown()
    return {"states": found.counts, **_repeated(place)}, _figures(found.results)


def _when_two_begun(place: Path, then: Callable[[], Any]) -> None:
    while len(_running(place)) < 2:
        time.sleep(0.2)
    time.sleep(1.0)
    then()


@contextmanager
def _killer(place: Path, seed: int) -> Iterator[list[int]]:
    """Kills a worker in the middle of a study, three times; gives the list of pids killed."""
    killed, over, chance = [], threading.Event(), random.Random(seed)

    def work() -> None:
        while len(killed) < KILLS and not over.wait(chance.uniform(0.5, 4.0)):
            candidates = [pid for pid in _running(place).values() if pid not in killed]
            if candidates:
                killed.append(chance.choice(candidates))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@contextmanager
def _nothing() -> Iterator[list[int]]:
    yield []


def _running(place: Path) -> dict[str, int]:
    """Studies at work and the process of each."""
    found = {}
    for path in (place / "runs").glob("*/log.jsonl"):
        if look(place, path.parent.name).state == "busy":
            pids = [
                entry["pid"] for entry in RunDirectory(path.parent).read_log() if entry["event"] == "worker"
            ]
            if pids:
                found[path.parent.name] = pids[-1]
    return found


def _repeated(place: Path) -> dict[str, Any]:
    """Attempts beyond the first, and the seconds of stages that were begun and cut off as a fraction of all stages' seconds (an upper
    bound: a search goes on from its checkpoint)."""
    attempts, lost, done = 0, 0.0, 0.0
    for path in (place / "runs").glob("*"):
        log = RunDirectory(path).read_log()
        begins = [i for i, entry in enumerate(log) if entry["event"] == "worker"]
        attempts += len(begins) - 1
        for first, after in itertools.pairwise(begins):
            events = log[first:after]
            if events[-1]["event"] == "begin":  # cut off somewhere before the next attempt
                lost += _seconds(events[-1]["time"], log[after]["time"])
        done += sum(entry.get("seconds", 0.0) for entry in log if entry["event"] == "done")
    return {"attempts_repeated": attempts, "repeated_share_at_most": lost / (lost + done) if done else None}


def _workers(place: Path) -> dict[str, Any]:
    """Where the workers' seconds went. apart: between the first worker's begin and the last one's; tail: between the first worker's end
    and the last one's; busy: fraction of the span in which the workers were at a study, mean; first: seconds
    of a worker's first study beyond the median of its others (libraries and the model are loaded in it);
    study: median seconds of the others."""
    spans: dict[int, list[tuple[str, str]]] = {}
    for path in (place / "runs").glob("*"):
        log = RunDirectory(path).read_log()
        pid = next((entry["pid"] for entry in log if entry["event"] == "worker"), 0)
        spans.setdefault(pid, []).append((log[0]["time"], log[-1]["time"]))
    each = [[_seconds(*span) for span in sorted(found)] for found in spans.values()]
    begins, ends = (
        [min(a for a, _ in found) for found in spans.values()],
        [max(b for _, b in found) for found in spans.values()],
    )
    later = [s for found in each for s in found[1:]]
    return {
        "apart": _seconds(min(begins), max(begins)),
        "tail": _seconds(min(ends), max(ends)),
        "busy": sum(map(sum, each)) / len(each) / _span(place),
        "first": float(np.mean([found[0] for found in each]) - np.median(later)) if later else None,
        "study": float(np.median(later)) if later else None,
    }


def _span(place: Path) -> float:
    """Seconds from the first study's begin to the last one's end."""
    times = [entry["time"] for path in (place / "runs").glob("*") for entry in RunDirectory(path).read_log()]
    return _seconds(min(times), max(times))


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _figures(results: pd.DataFrame) -> pd.DataFrame:
    return results[SAME].sort_values(["study", "condition"], ignore_index=True)


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(float(middle), 4), "q25": round(float(low), 4), "q75": round(float(high), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--phases", nargs="*", default=["one", *TURNED, "killed", "cluster"])
    asked = parser.parse_args()
    many, place = studies(asked.studies), Path(tempfile.mkdtemp(prefix="sweep-bench-"))
    ways: dict[str, Callable[[Path], tuple[dict[str, Any], pd.DataFrame]]] = {
        "one": lambda to: one_worker(many, to, asked.repeats),
        "fresh": lambda to: processes(many, to, 1),
        "two": lambda to: workers(many, to, kill=False),
        "bare": lambda to: processes(many, to, 2),
        "killed": lambda to: workers(many, to, kill=True),
        "cluster": lambda to: cluster(many, to),
    }
    turned = [phase for phase in ways if phase in asked.phases and phase in TURNED]
    todo = [phase for phase in ways if phase in asked.phases and phase not in TURNED]
    found: dict[str, Any] = {
        "schema": 2,
        "studies": asked.studies,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    found |= {phase: [] for phase in turned}
    expected: pd.DataFrame | None = None
    try:
        for number, phase in enumerate([*turned * asked.repeats, *todo]):
            print(phase, flush=True)
            facts, figures = ways[phase](place / f"{number} {phase}")
            expected = figures if expected is None else expected
            facts |= {"same_results": figures.equals(expected)}
            found[phase] = [*found[phase], facts] if phase in TURNED else facts
            write_json(asked.out, found | _speed_ups(found))
        print(json.dumps(found | _speed_ups(found), indent=2))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _speed_ups(found: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one worker over those of two, turn by turn; and of two bare processes over those of two workers."""
    pairs = {
        "speed_up": ("fresh", "two"),
        "speed_up_bare": ("fresh", "bare"),
        "two_over_bare": ("two", "bare"),
    }
    ratios = {
        name: [a["span"] / b["span"] for a, b in zip(found.get(one, ()), found.get(two, ()), strict=False)]
        for name, (one, two) in pairs.items()
    }
    return {
        name: _spread(values) | {"turns": [round(v, 3) for v in values]}
        for name, values in ratios.items()
        if values
    }


if __name__ == "__main__":
    main()
