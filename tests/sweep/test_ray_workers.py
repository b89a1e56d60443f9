"""How studies are given to workers and taken back from lost ones, with a stand-in for Ray that runs each call at once. The real Ray:
test_sweep_ray.py."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from workbench.errors import UserError
from workbench.models.memory_in_use import DeviceLostError, telling_lost_devices
from workbench.runs import read_json
from workbench.study.study_presets import preset
from workbench.study.study_settings import ModelSettings
from workbench.sweep import Sweep, ray_cluster
from workbench.sweep import ray_workers as pool
from workbench.sweep import study_worker as work
from workbench.sweep.resolve_studies import PlannedStudy, plan
from workbench.sweep.serial_worker import run_here
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
        return lambda cls: type(
            "Maker", (), {"remote": staticmethod(lambda *arguments: Handle(cls(*arguments)))}
        )

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
    found = {
        o.key: o
        for o in pool._Pool(StandIn(), planned, place, lambda key, *at: told.append(key)).run(2, 1, 0)
    }
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
    outcomes = list(pool._Pool(StandIn(), planned, place, lambda *at: None).run(2, 1, 0))
    assert len(outcomes) == 8 and len(loads) <= 3, loads
    assert {o.state for o in outcomes} == {"done"}


def on_variant(study, model):
    """A sweep's variant of a study with another model."""
    return dataclasses.replace(studies(1)[0].variant, study=study.model_copy(update={"model": model}))


def on(device: str, dtype: str = "bfloat16"):
    """One planned study whose model is on a device."""
    variant = studies(1)[0].variant
    study = variant.study.model_copy(update={"model": ModelSettings(device=device, dtype=dtype)})
    return PlannedStudy(dataclasses.replace(variant, study=study), "0" * 16)


@pytest.mark.parametrize(
    "devices, memory, peak, gpus",
    [
        (["cpu"], 80, 20, 0),
        (["cuda"], None, 20, 1),
        (["cuda"], 80, 50, 1),
        (["cuda"], 80, 20, 1 / 3),
        (["cuda", "cpu"], 80, 30, 1 / 2),
        (["cuda"], 80, 1, 1 / 8),
        (["balanced"], 80, 150, 2),
        (["balanced"], 80, 20, 1),
    ],
)
def test_workers_share_gpus_as_their_planned_memory_allows(devices, memory, peak, gpus):
    """76 of 80 GB may be used: three plans of 20 GB fit, two of 30, at most eight of one; 150 GB need two GPUs."""
    planned = [on(device) for device in devices]
    assert pool.gpus_of_a_worker(
        planned, memory and memory * 10**9, lambda study: peak * 10**9
    ) == pytest.approx(gpus)


def test_a_study_whose_searches_shrink_gets_one_gpu():
    """150 GB at its own batches: the 76 GB that may be used hold it only with smaller ones."""
    planned = [on("cuda", "float32")]
    assert pool.gpus_of_a_worker(planned, 80 * 10**9, lambda study: 150 * 10**9) == 1


@pytest.mark.parametrize(
    "memories, says",
    [
        ([80 * 10**9, 24 * 10**9], r"a GPU of 24\.0 GB \(another has 80\.0 GB\), float32: does not fit"),
        ([24 * 10**9], r"a GPU of 24\.0 GB, float32: .* bfloat16 fits with search\.batch_tokens 2048"),
        ([80 * 10**9] * 2, None),
        ([], None),
    ],
)
def test_a_study_must_fit_the_smallest_gpu_on_which_it_may_be_placed(memories, says):
    """An 8B model: 32.1 GB of weights in float32."""
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")
    model = study.model.model_copy(update={"device": "cuda", "dtype": "float32"})
    planned = [on("cpu"), dataclasses.replace(on("cuda"), variant=on_variant(study, model))]
    if says is None:
        pool.refuse_studies_without_room(planned, memories)
        return
    with pytest.raises(UserError, match=says):
        pool.refuse_studies_without_room(planned, memories)


class Nodes(StandIn):
    """Ray with one node for each list of GPUs (bytes); the first is this machine."""

    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    )
    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, *gpus):
        self.gpus = gpus

    def nodes(self):
        alive = {"Alive": True, "NodeID": "cpus only", "Resources": {"CPU": 1.0}}
        return [alive] + [
            {"Alive": True, "NodeID": i, "Resources": {"GPU": float(max(1, len(gpus)))}}
            for i, gpus in enumerate(self.gpus)
        ]

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: 0)

    def remote(self, **options):
        calls = lambda scheduling_strategy: SimpleNamespace(remote=lambda: scheduling_strategy)  # noqa: E731
        return lambda task: SimpleNamespace(options=calls)

    def get(self, call, timeout=None):
        return [self.gpus[node] for node in call]


@pytest.mark.parametrize(
    "gpus, here, found",
    [
        ([[80, 80], [24]], True, [80, 80, 24]),
        ([[80, 80], [24]], False, [80, 80, 24]),
        ([[80], []], False, []),
        ([[], [24]], True, []),
    ],
)
def test_the_gpus_of_every_node_are_asked_for(monkeypatch, gpus, here, found):
    """A node that cannot say (an empty list) leaves all unknown: its GPU may be the smallest."""
    monkeypatch.setattr(ray_cluster, "_own_gpus", lambda: gpus[0])
    assert ray_cluster.gpu_memories(Nodes(*gpus), here) == found


def test_nvidia_smi_is_read_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ray_cluster.node_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81559\necho 24564\n")
    program.chmod(0o755)
    assert ray_cluster.node_gpus() == [81559 * 1024**2, 24564 * 1024**2]


def test_different_gpus_are_shared_by_the_smallest(place, monkeypatch):
    """Nodes of 80 and 24 GB, a plan of 10 GB: half of either, as 22.8 of 24 GB hold it twice."""
    asked: list[dict[str, object]] = []
    stand_in = StandIn()
    plain = StandIn.remote
    monkeypatch.setattr(
        StandIn, "remote", lambda self, **options: asked.append(options) or plain(self, **options)
    )
    monkeypatch.setattr(StandIn, "cluster_resources", lambda self: {"GPU": 2.0, "CPU": 64.0}, raising=False)
    monkeypatch.setattr(pool, "connected", lambda *where: contextlib.nullcontext(stand_in))
    monkeypatch.setattr(pool, "gpu_memories", lambda ray, here: [80 * 10**9, 24 * 10**9])
    monkeypatch.setattr(pool, "_planned_peak", lambda study: 10 * 10**9)
    monkeypatch.setattr(work, "refuse_without_room", lambda *what: None)
    monkeypatch.setattr(work, "run", lambda *arguments, **settings: None)
    monkeypatch.setattr(work, "look", lambda out, key: StudyOutcome(key, "done"))
    assert len(list(pool.run_pool([on("cuda")], place, pool.WorkerPool(None, 1), lambda *at: None))) == 1
    assert asked == [{"num_cpus": 1, "num_gpus": 1 / 2, "max_restarts": -1}]


def test_ray_places_workers_by_the_gpus_that_they_hold(place, monkeypatch):
    """Four GPUs, a third of one a worker: twelve at a time, of twenty studies; each loads its model once."""
    asked, loads = [], []
    stand_in = StandIn()
    plain = StandIn.remote
    monkeypatch.setattr(
        StandIn, "remote", lambda self, **options: asked.append(options) or plain(self, **options)
    )
    monkeypatch.setattr(StandIn, "cluster_resources", lambda self: {"GPU": 4.0, "CPU": 64.0}, raising=False)
    monkeypatch.setattr(pool, "connected", lambda *where: contextlib.nullcontext(stand_in))
    monkeypatch.setattr(pool, "gpus_of_a_worker", lambda *what: 1 / 3)
    monkeypatch.setattr(work, "load_model", lambda name, *settings: loads.append(name))
    monkeypatch.setattr(work, "run", lambda *arguments, **settings: None)
    monkeypatch.setattr(work, "look", lambda out, key: StudyOutcome(key, "done"))
    made: list[object] = []
    monkeypatch.setattr(
        pool._Pool,
        "_start",
        lambda self, actor, own=pool._Pool._start: made.append(actor) or own(self, actor),
    )
    outcomes = list(pool.run_pool(studies(20), place, pool.WorkerPool(None, 1), lambda *at: None))
    assert len(outcomes) == 20 and asked == [{"num_cpus": 1, "num_gpus": 1 / 3, "max_restarts": -1}]
    assert len(made) == 12 and len(loads) <= 12


def test_a_study_whose_gpu_is_lost_is_resumed_by_another_worker(place, monkeypatch):
    runs: Counter[int] = Counter()

    def study_run(study, directory, resume, report, model):
        with directory.lock():
            runs[study.seed] += 1
            if runs[study.seed] == 1 and study.seed == 1:
                raise DeviceLostError("the GPU was lost")

    def end(self):
        raise Lost

    monkeypatch.setattr(work, "run", study_run)
    monkeypatch.setattr(work, "look", lambda out, key: StudyOutcome(key, "done"))
    monkeypatch.setattr(pool.RayWorker, "_end", end)
    planned = studies(3)
    found = list(pool._Pool(StandIn(), planned, place, lambda *at: None).run(2, 1, 1))
    assert {o.state for o in found} == {"done"} and runs == {0: 1, 1: 2, 2: 1}


def test_here_a_lost_gpu_ends_the_sweep_in_one_line_that_says_how_to_go_on(place, monkeypatch):
    def study_run(*arguments, **settings):
        with telling_lost_devices():
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(work, "run", study_run)
    planned = studies(2)
    with pytest.raises(
        pool.UserError, match=r"the GPU was lost \(CUDA error: device-side assert triggered\); resume"
    ):
        list(run_here(planned, place, 1, None, lambda *at: None))
    assert "last checkpoint" in read_json(run_path(place, planned[0].key) / FAILURE)["reason"]
    assert not run_path(place, planned[1].key).exists(), "the device is gone for the others too"


def test_other_errors_are_no_lost_gpu():
    for error in (
        RuntimeError("CUDA out of memory"),
        RuntimeError("shapes do not match"),
        torch.OutOfMemoryError("CUDA error: out of memory"),
    ):
        with pytest.raises(type(error), match=str(error)) as raised, telling_lost_devices():
            raise error
        assert not isinstance(raised.value, DeviceLostError)


def test_no_worker_at_all_is_one_line(place, monkeypatch):
    def broken(self):
        raise Lost

    monkeypatch.setattr(pool.RayWorker, "ready", broken)
    with pytest.raises(pool.UserError, match="no worker could be started: the actor died"):
        list(pool._Pool(StandIn(), studies(1), place, lambda *at: None).run(2, 1, 0))


def test_a_sweep_none_of_whose_workers_gets_ready_ends_in_one_line(place, monkeypatch):
    """As Ray on a machine without memory: workers are killed and started again, and never answer."""

    class NeverReady(StandIn):
        killed = 0

        def wait(self, calls, timeout):
            return [], calls

        def kill(self, actor, no_restart):
            self.killed += no_restart

    monkeypatch.setattr(pool, "START", 0.05)
    ray = NeverReady()
    with pytest.raises(UserError, match="no worker was ready within 0 s"):
        list(pool._Pool(ray, studies(2), place, lambda *_: None).run(2, 1, 0))
    assert ray.killed == 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Task run failed due to oom. Error: 2 worker(s) were killed due to the node running low on memory.",
            "ran out of memory",
        ),
        ("The actor died because its node has died. Node Id: 7f", "its node is gone"),
        (
            "The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR",
            "killed or crashed",
        ),
    ],
)
def test_why_a_worker_was_lost_is_told_from_what_ray_says(said, reason):
    """Ray's words: docs.ray.io, "How to avoid out-of-memory errors", and the exceptions of Ray 2."""
    assert reason in pool.loss_reason(RuntimeError(said))
