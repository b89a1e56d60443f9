"""How studies are given to workers and taken back from lost ones, with a stand-in for Ray that runs each call at once. The real Ray:
test_sweep_ray.py."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.runs import read_json
from workbench.sweep import Sweep
from workbench.sweep import ray_workers as pool
from workbench.sweep import study_worker as work
from workbench.sweep.resolve_studies import plan
from workbench.sweep.sweep_store import FAILURE, StudyOutcome, run_path

BASE = {"sae": "none", "conditions": ["resga"]}


class Lost(BaseException):
    """The worker's process is gone."""


class Exceptions:
    class RayError(Exception): ...

    class RayActorError(RayError): ...


class Call:
    """What Ray calls a reference: a result that is there already, or an error."""

    def __init__(self, function, arguments):
        self.error = self.value = None
        try:
            self.value = function(*arguments)
        except Lost:
            self.error = Exceptions.RayActorError("the actor died")


class Handle:
    """An actor: each of its methods has `remote`."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        method = type("Method", (), {"options": lambda self, **_: self})()
        method.remote = lambda *arguments: Call(getattr(self._inner, name), arguments)
        return method


class StandIn:
    """As much of Ray as the pool uses. The newest call ends first, so that the order is not that of giving."""

    exceptions = Exceptions

    def remote(self, **options):
        return lambda cls: type("Maker", (), {"remote": staticmethod(lambda *arguments: Handle(cls(*arguments)))})

    def wait(self, calls, timeout):
        return calls[-1:], calls[:-1]

    def get(self, call, timeout=None):
        if call.error:
            raise call.error
        return call.value


class News:
    """As much of Ray's queue as the pool uses; its like starts no Ray."""

    def __init__(self, **options):
        self.items = []

    def put_nowait(self, item):
        self.items.append(item)

    def qsize(self):
        return len(self.items)

    def get_nowait_batch(self, n):
        taken, self.items = self.items[:n], self.items[n:]
        return taken


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("ray.util.queue"), "Queue", News)
    monkeypatch.setattr(work, "load_model", lambda name, *settings: name)
    (tmp_path / "runs").mkdir()
    return tmp_path


def studies(n: int, **grid):
    return plan(Sweep(base=BASE, grid={"seed": tuple(range(n)), **grid}).expand())


def test_a_lost_worker_s_study_is_done_by_another_and_one_that_kills_three_is_given_up(place, monkeypatch):
    runs: Counter[int] = Counter()

    def study_run(study, directory, resume, report, model):
        with directory.lock():
            runs[study.seed] += 1
            report("search", 0.5)
            if study.seed == 2 or (study.seed == 1 and runs[1] == 1):
                raise Lost

    monkeypatch.setattr(work, "run", study_run)
    monkeypatch.setattr(work, "look", lambda out, key: StudyOutcome(key, "done"))
    told: list[str] = []
    planned = studies(5)
    found = {o.key: o for o in pool._Pool(StandIn(), planned, place, lambda key, *at: told.append(key)).run(2, 1, False)}
    states = {p.study.seed: found[p.key].state for p in planned}
    assert states == {0: "done", 1: "done", 2: "failed", 3: "done", 4: "done"}
    assert runs == {0: 1, 1: 2, 2: 3, 3: 1, 4: 1}
    assert "lost 3 times" in read_json(run_path(place, planned[2].key) / FAILURE)["reason"]
    assert set(told) <= {p.key for p in planned} and told


def test_a_free_worker_takes_a_study_of_the_model_that_it_holds(place, monkeypatch):
    loads: list[str] = []
    monkeypatch.setattr(work, "load_model", lambda name, device, dtype, *rest: loads.append(dtype))
    monkeypatch.setattr(work, "run", lambda *arguments, **settings: None)
    monkeypatch.setattr(work, "look", lambda out, key: StudyOutcome(key, "done"))
    planned = studies(4, **{"model.dtype": ("float32", "bfloat16")})
    outcomes = list(pool._Pool(StandIn(), planned, place, lambda *at: None).run(2, 1, False))
    assert len(outcomes) == 8 and len(loads) <= 3, loads
    assert {o.state for o in outcomes} == {"done"}


def test_no_worker_at_all_is_one_line(place, monkeypatch):
    def broken(self):
        raise Lost

    monkeypatch.setattr(pool.RayWorker, "ready", broken)
    with pytest.raises(pool.UserError, match="no worker could be started: the actor died"):
        list(pool._Pool(StandIn(), studies(1), place, lambda *at: None).run(2, 1, False))
