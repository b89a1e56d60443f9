"""Sweeps with Ray: real studies, two workers, a killed one, two nodes of which one goes. The same results as one process gives.

Ray listens on loopback only, and nothing of it is left when a test ends."""

from __future__ import annotations

import os
import socket
import warnings

import psutil
import pytest

from benchmarks import sweep as bench
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.sweep import Sweep, sweep
from workbench.sweep import ray_workers as pool
from workbench.sweep.ray_cluster import connected

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported, which decides by it: loopback only
pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*", "ignore::DeprecationWarning:ray.*", "ignore::UserWarning:ray.*"),
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
        assert [entry["stage"] for entry in RunDirectory(path).read_log() if entry["event"] == "done"].count("report") == 1


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
    with pytest.raises(UserError, match=f"no Ray cluster at 127.0.0.1:{port}"), connected(None, f"127.0.0.1:{port}"):
        pass
