"""Several workers, on this machine or on a Ray cluster: Ray starts, places and restarts them; here they are only given studies.

1. Each worker is an actor that holds one CPU (and one GPU where the studies request CUDA), and with it its model.
2. A free worker gets the next study, if there is one, of the model that it holds.
3. Ray restarts a worker whose process or node is lost. Its study goes back to the head of the queue and is resumed from its run directory
   by whichever worker is free first. A study that lost its worker three times is listed as failed: it may be what kills them.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.optional_packages import needs_extra
from workbench.runs import RunDirectory
from workbench.study import Study
from workbench.study.study_settings import ModelSettings
from workbench.sweep.resolve_studies import PlannedStudy
from workbench.sweep.study_worker import StudyWorker, Tell
from workbench.sweep.sweep_store import StudyOutcome, run_path, write_failure

#: Workers that a study may lose before it is given up.
LOSSES = 3
#: Seconds between two looks at the state of the running studies; each call through Ray takes a millisecond or more of cores that the workers need.
SHOWN_EVERY = 2.0
#: Seconds in which a Ray of our own may start; a loaded machine needs more than Ray's own 30.
START_SECONDS = 180
#: Bytes of shared memory that a Ray of our own takes: studies and outcomes are small, tensors stay with the workers.
OBJECT_STORE = 80 << 20


class RayWorker:
    """A `StudyWorker` run by Ray."""

    def __init__(self, threads: int, news: Any) -> None:
        from ray.exceptions import RayError

        self._worker, self._news, self._lost_news, self._told = StudyWorker(threads), news, RayError, 0.0

    def ready(self) -> bool:
        """Answers once the process runs."""
        return True

    def run(self, out: Path, key: str, study: Study) -> StudyOutcome:
        """See `StudyWorker.run`."""
        return self._worker.run(out, key, study, self._tell)

    def _tell(self, key: str, stage: str, share: float) -> None:
        if time.monotonic() - self._told < SHOWN_EVERY / 2:
            return
        self._told = time.monotonic()
        with suppress(self._lost_news):
            self._news.put_nowait((key, stage, share))


def run_pool(
    planned: Sequence[PlannedStudy], out: Path, workers: int | None, threads: int, address: str | None, tell: Tell
) -> Iterator[StudyOutcome]:
    """The studies, in the order in which they end. workers: None for all of the cluster's GPUs or CPUs."""
    gpu = any(p.study.model.device.startswith("cuda") for p in planned)
    with connected(workers, address) as ray:
        slots = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if slots < 1:
            raise UserError(f"no {'GPU' if gpu else 'CPU'} in the Ray cluster")
        yield from _Pool(ray, planned, out, tell).run(min(len(planned), workers or slots), threads, gpu)


class _Pool:
    """The queue of studies and the workers: starting, busy with a study, or free."""

    def __init__(self, ray: Any, planned: Sequence[PlannedStudy], out: Path, tell: Tell) -> None:
        from ray.util.queue import Queue

        self.ray, self.out, self.tell = ray, out, tell
        self.queue = deque(planned)
        self.losses: Counter[str] = Counter()
        self.starting: dict[Any, Any] = {}
        self.busy: dict[Any, tuple[PlannedStudy, Any]] = {}
        self.free: list[Any] = []
        self.holds: dict[Any, ModelSettings] = {}
        #: The state of the running studies. A process of Ray's own, which has nothing of ours to import.
        self.news = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})

    def run(self, workers: int, threads: int, gpu: bool) -> Iterator[StudyOutcome]:
        made = self.ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_restarts=-1)(RayWorker)
        for _ in range(workers):
            self._start(made.remote(threads, self.news))
        while self.queue or self.busy:
            self._give()
            ended, _ = self.ray.wait([*self.starting, *self.busy], timeout=SHOWN_EVERY)
            self._show()
            yield from (outcome for ref in ended if (outcome := self._end(ref)))

    def _start(self, actor: Any) -> None:
        """A worker is free once it answers; Ray asks again while it restarts."""
        self.starting[actor.ready.options(max_task_retries=-1).remote()] = actor

    def _give(self) -> None:
        """A study to each free worker, of the model that it holds where there is one."""
        while self.free and self.queue:
            actor = self.free.pop()
            p = next((p for p in self.queue if p.study.model == self.holds.get(actor)), self.queue[0])
            self.queue.remove(p)
            self.holds[actor] = p.study.model
            self.busy[actor.run.remote(self.out, p.key, p.study)] = (p, actor)

    def _end(self, ref: Any) -> StudyOutcome | None:
        """What came back of a worker: that it is up, a study's outcome, or its loss."""
        lost = self.ray.exceptions.RayActorError
        if ref in self.starting:
            actor = self.starting.pop(ref)
            try:
                self.ray.get(ref)
            except lost as error:
                return self._no_worker(error)
            self.free.append(actor)
            return None
        p, actor = self.busy.pop(ref)
        try:
            outcome = self.ray.get(ref)
        except lost:
            self.holds.pop(actor, None)
            self._start(actor)
            return self._lost(p)
        self.free.append(actor)
        return outcome

    def _lost(self, p: PlannedStudy) -> StudyOutcome | None:
        """Back to the head of the queue; listed as failed after too many losses."""
        self.losses[p.key] += 1
        if self.losses[p.key] < LOSSES:
            self.queue.appendleft(p)
            return None
        reason = f"its worker was lost {LOSSES} times (out of memory?)"
        if (run_path(self.out, p.key) / "manifest.json").exists():
            write_failure(RunDirectory.open(run_path(self.out, p.key)), reason)
        return StudyOutcome(p.key, "failed", reason)

    def _no_worker(self, error: Exception) -> None:
        """A worker that could not even begin; the others go on, if there are any."""
        if not (self.starting or self.busy or self.free):
            raise UserError(f"no worker could be started: {' '.join(str(error).split())[:400]}") from error

    def _show(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            latest = {key: (stage, share) for key, stage, share in self.news.get_nowait_batch(self.news.qsize())}
            for key, (stage, share) in latest.items():
                self.tell(key, stage, share)


def start_patiently(start: Callable[[], Any], clean: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """What `start` gives, started again after a time-out of its own until `seconds` are over: Ray gives a node 30 s, whatever the
    machine's load, and has no setting for it. clean: removes what a failed start left. Any other error is raised at once."""
    end = time.monotonic() + seconds
    while True:
        try:
            return start()
        except Exception as error:  # Ray raises bare Exceptions where a node does not come up
            clean()
            if time.monotonic() >= end or not any(words in str(error).lower() for words in ("timed out", "timeout")):
                raise


@contextmanager
def _few_attempts() -> Iterator[None]:
    """While the block runs, Ray tries an address twice, half a minute each, not its own twenty times."""
    name = "RAY_gcs_server_port_wait_time_s"  # in Ray's own spelling
    before = os.environ.get(name)
    os.environ[name] = "2"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def connected(workers: int | None, address: str | None) -> Iterator[Any]:
    """Ray: the cluster at `address`, the one that this process is already connected to, or one of its own on this machine, bound to
    loopback, without a dashboard and without telling anybody; the last two kinds are left as they were found."""
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if address is None and named not in ("", "local"):
        raise UserError(f"the environment variable RAY_ADDRESS names a Ray cluster ({named}): give it as the address to use it, or unset it")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux too: a Ray that cannot be a cluster binds to loopback
    with needs_extra("sweep", "a sweep on a cluster" if address else "a sweep with more than one worker"):
        import ray
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if address:
            with _few_attempts():
                ray.init(address, **quiet)
        else:
            here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE}
            start_patiently(lambda: ray.init(num_cpus=workers, **here, **quiet), ray.shutdown)
    except Exception as error:  # Ray raises bare Exceptions where a node does not come up
        ray.shutdown()
        raise UserError(f"no Ray {f'cluster at {address}' if address else 'here'}: {' '.join(str(error).split())}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
