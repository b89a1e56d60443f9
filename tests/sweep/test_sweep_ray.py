"""Sweeps with Ray: real studies, two workers, a killed one, two nodes of which one goes. The same results as one process gives.

Ray listens on loopback only, and nothing of it is left when a test ends."""

from __future__ import annotations

import os
import socket
import sys
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import sweep as bench
from tests.support.run_bytes import bytes_without_times
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.study.study_settings import ModelSettings
from workbench.sweep import Sweep, sweep
from workbench.sweep import ray_workers as pool
from workbench.sweep.ray_cluster import OBJECT_STORE, connected, start_patiently
from workbench.sweep.resolve_studies import plan
from workbench.sweep.sweep_store import StudyOutcome

os.environ.setdefault(
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
)  # before Ray is imported, which decides by it: loopback only
pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings(
        "ignore::FutureWarning:ray.*", "ignore::DeprecationWarning:ray.*", "ignore::UserWarning:ray.*"
    ),
]


@pytest.fixture(scope="module")
def asked() -> Sweep:
    return bench.studies(3)


@pytest.fixture(scope="module")
def expected(asked, tmp_path_factory):
    found = sweep(asked, tmp_path_factory.mktemp("one") / "out", threads=1)
    assert found.counts == {"done": 3}
    return bench._figures(found.results)


@pytest.fixture(autouse=True)
def _nothing_left():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    import ray

    assert not ray.is_initialized()
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    assert [child.name() for child in psutil.Process().children(recursive=True)] == []


def test_killed_workers_lose_nothing_and_change_nothing(asked, expected, tmp_path):
    facts, figures = bench.workers(asked, tmp_path / "out", kill=True, seed=1)
    assert facts["states"] == {"done": 3} and facts["killed"] >= 1 and facts["attempts_repeated"] >= 1
    assert figures.equals(expected)
    for path in (tmp_path / "out/runs").glob("*"):
        assert [entry["stage"] for entry in RunDirectory(path).read_log() if entry["event"] == "done"].count(
            "report"
        ) == 1


def test_a_node_that_goes_takes_no_study_with_it(asked, expected, tmp_path):
    facts, figures = bench.cluster(asked, tmp_path / "out")
    assert facts["states"] == {"done": 3} and figures.equals(expected)


def test_a_study_that_kills_its_workers_is_given_up(asked, tmp_path, monkeypatch):
    class Deadly(pool.RayWorker):
        def run(self, out, key, study):
            import os

            if study.seed == 0 and study.persona == "hallucination":
                os._exit(1)
            return super().run(out, key, study)

    monkeypatch.setattr(pool, "RayWorker", Deadly)
    found = sweep(asked, tmp_path / "out", workers=2, threads=1)
    assert found.counts["failed"] >= 1 and "lost 3 times" in " ".join(found.studies["reason"])


def test_no_cluster_there_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(UserError, match=f"no Ray cluster at 127.0.0.1:{port}"),
        connected(None, f"127.0.0.1:{port}"),
    ):
        pass


def test_one_and_two_workers_leave_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pair = bench.studies(2)
    one, two = sweep(pair, tmp_path / "one"), sweep(pair, tmp_path / "two", workers=2)
    for run in one.studies["run"]:
        first, second = (
            bytes_without_times(tmp_path / "one" / run),
            bytes_without_times(tmp_path / "two" / run),
        )
        assert [
            name
            for name in first.keys() | second.keys()
            if name not in ("timings.json", "log.jsonl") and first.get(name) != second.get(name)
        ] == []
    assert one.counts == two.counts == {"done": 2}


def test_workers_that_ray_kills_for_memory_again_and_again_end_the_sweep_in_one_line(
    asked, tmp_path, monkeypatch
):
    """Every worker is above the threshold from its first byte, so that Ray kills and restarts each of them for ever."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setattr(pool, "START", 60.0)
    with pytest.raises(UserError, match=r"no worker (was ready within 60 s|could be started)"):
        sweep(asked, tmp_path / "out", workers=2)


def test_no_process_of_ray_is_left_ten_seconds_after_its_driver_was_killed(tmp_path):
    code = (
        "from benchmarks import sweep as bench\nfrom workbench.sweep import sweep\n"
        f"if __name__ == '__main__':\n    sweep(bench.studies(6), {str(tmp_path / 'out')!r}, workers=2)\n"
    )
    driver = psutil.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    )
    while driver.poll() is None and not [
        log for log in (tmp_path / "out").glob("runs/*/log.jsonl") if '"begin"' in log.read_text()
    ]:
        time.sleep(0.1)
    started = driver.children(recursive=True)
    assert {"raylet", "gcs_server"} <= {process.name() for process in started}
    driver.kill()
    driver.wait(10)
    _, left = psutil.wait_procs(started, timeout=10)
    assert [process.name() for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def test_ray_gives_workers_the_gpus_that_their_plans_need(tmp_path, monkeypatch):
    """A real Ray with two GPUs that do not exist: workers hold half of one each, or both; three are refused."""
    import ray

    asked = plan(Sweep(base={"sae": "none", "conditions": ["resga"]}, grid={"seed": (0, 1, 2)}).expand())

    def on(device: str) -> list:
        settings = ModelSettings(device=device, dtype="bfloat16")
        return [
            replace(p, variant=replace(p.variant, study=p.study.model_copy(update={"model": settings})))
            for p in asked
        ]

    class Noting(pool.RayWorker):
        def run(self, out, key, study):
            import os

            import ray

            held = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            (out / f"{study.model.device}_{key}").write_text(f"{held:g} {len(seen)}", encoding="utf-8")
            return StudyOutcome(key, "done")

    monkeypatch.setattr(pool, "RayWorker", Noting)
    monkeypatch.setattr(pool.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        pool.torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 10**9)
    )
    start_patiently(
        lambda: ray.init(
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE,
        ),
        ray.shutdown,
    )
    try:
        for device, peak, workers in (("cuda", 30, 2), ("balanced", 150, None)):
            monkeypatch.setattr(pool, "_planned_peak", lambda study, peak=peak: peak * 10**9)
            ended = list(pool.run_pool(on(device), tmp_path, pool.WorkerPool(workers, 1), lambda *_: None))
            assert [outcome.state for outcome in ended] == ["done"] * 3
        found = {path.name.split("_")[0]: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
        assert len(list(tmp_path.iterdir())) == 6 and found == {"cuda": "0.5 1", "balanced": "2 2"}
        monkeypatch.setattr(pool, "_planned_peak", lambda study: 200 * 10**9)
        with pytest.raises(UserError, match="no 3 GPUs for one study, it has 2 in the Ray cluster"):
            list(pool.run_pool(on("balanced"), tmp_path, pool.WorkerPool(None, 1), lambda *_: None))
    finally:
        ray.shutdown()
