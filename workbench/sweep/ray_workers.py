"""Several workers, on this machine or on a Ray cluster: Ray starts, places and restarts them; here they are only given studies.

1. Each worker is an actor that holds one CPU and, where the studies request CUDA, the part of a GPU that
   their planned memory needs (`gpus_of_a_worker`), or whole GPUs for a model that is spread over them, and
   with it its model.
2. A free worker gets the next study, if there is one, of the model that it holds.
3. Ray restarts a worker whose process or node is lost. Its study goes back to the head of the queue and is
   resumed from its run directory by whichever worker is free first (a worker whose GPU is lost ends itself).
   A study that lost its worker three times is listed as failed: it may be what kills them.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models.device_room import USABLE
from workbench.models.memory_in_use import DeviceLostError
from workbench.models.model_directory import spreads
from workbench.runs import RunDirectory
from workbench.study import Study
from workbench.study.cost_estimate import plan
from workbench.study.study_settings import ModelSettings
from workbench.sweep.ray_cluster import connected
from workbench.sweep.resolve_studies import PlannedStudy
from workbench.sweep.study_worker import StudyWorker, Tell, over_limit
from workbench.sweep.sweep_store import StudyOutcome, run_path, write_failure

#: Workers that a study may lose before it is given up.
LOSSES = 3
#: Seconds after a study's limit in which its worker may still stop it in order.
GRACE = 60.0
#: Seconds between two looks at the state of the running studies; each call through Ray takes a millisecond or
#: more of cores that the workers need.
SHOWN_EVERY = 2.0
#: Seconds within which one of the workers must be ready where none of them is: Ray kills and restarts them
#: for ever on a machine without memory.
START = 600.0
#: The most workers that share a GPU: each has a CUDA context of its own.
MOST_ON_ONE = 8


class RayWorker:
    """A `StudyWorker` run by Ray."""

    def __init__(self, threads: int, seconds: float | None, news: Any, part: float = 1.0) -> None:
        from ray.exceptions import RayError

        if part < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(part)
        self._worker, self._news, self._lost_news, self._told = (
            StudyWorker(threads, seconds),
            news,
            RayError,
            0.0,
        )

    def ready(self) -> bool:
        """Answers once the process runs."""
        return True

    def run(self, out: Path, key: str, study: Study) -> StudyOutcome:
        """See `StudyWorker.run`; a worker whose GPU is lost ends, so that Ray starts it anew."""
        try:
            return self._worker.run(out, key, study, self._tell)
        except DeviceLostError:
            self._end()
            raise

    def _end(self) -> None:
        os._exit(1)

    def _tell(self, key: str, stage: str, share: float) -> None:
        if time.monotonic() - self._told < SHOWN_EVERY / 2:
            return
        self._told = time.monotonic()
        with suppress(self._lost_news):
            self._news.put_nowait((key, stage, share))


@dataclass(frozen=True)
class WorkerPool:
    """The workers of a sweep.

    workers: None for all of the cluster's GPUs or CPUs; threads: of each; address: of a cluster, None for
    this machine; seconds: limit of each study.
    """

    workers: int | None
    threads: int
    address: str | None = None
    seconds: float | None = None


def gpus_of_a_worker(
    planned: Sequence[PlannedStudy], memory: int | None, needed: Callable[[Study], int]
) -> float:
    """GPUs, or the part of one, that a worker holds: 0 without CUDA.

    Args:
        planned: The studies.
        memory: Bytes of a GPU; None where it is not known (none on this machine): then one whole GPU each.
        needed: Planned peak of a study on a GPU, bytes.

    Raises:
        UserError: A study that one GPU cannot hold and that is not spread over several.
    """
    wanted = [
        p.study for p in planned if p.study.model.device.startswith("cuda") or spreads(p.study.model.device)
    ]
    if not wanted:
        return 0
    several = any(spreads(study.model.device) for study in wanted)
    if memory is None:
        return 1
    most = max(wanted, key=needed)
    peak, room = needed(most), USABLE * memory
    if peak > room and not spreads(most.model.device):
        raise UserError(
            f"{most.model.name} in {most.model.dtype}: the plan needs {peak / 1e9:.1f} GB, a GPU has {memory / 1e9:.1f}; "
            "bfloat16, a smaller search.batch_tokens or device balanced would need less of one"
        )
    return (
        max(1, -(-peak // int(room)))
        if several or 2 * peak > room
        else 1 / min(MOST_ON_ONE, int(room // peak))
    )


def run_pool(
    planned: Sequence[PlannedStudy], out: Path, asked: WorkerPool, tell: Tell
) -> Iterator[StudyOutcome]:
    """The studies, in the order in which they end."""
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    gpus = gpus_of_a_worker(planned, memory, _planned_peak)
    with connected(asked.workers, asked.address) as ray:
        there = ray.cluster_resources().get("GPU" if gpus else "CPU", 0)
        slots = int(there / (gpus or 1) + 1e-6)
        if slots < 1:
            lacking = (
                f"{gpus:g} GPUs for one study, it has {there:g}" if gpus > 1 else "GPU" if gpus else "CPU"
            )
            raise UserError(f"no {lacking} in the Ray cluster")
        yield from _Pool(ray, planned, out, tell, asked.seconds).run(
            min(len(planned), asked.workers or slots), asked.threads, gpus
        )


def _planned_peak(study: Study) -> int:
    """Bytes at the peak of a study's plan on a GPU."""
    estimate = plan(study)
    return max(estimate.bytes(stage, study.model.dtype) for stage in estimate.stages)


@dataclass(frozen=True)
class _Given:
    """A study at work: by whom, since when, and whether its worker was stopped because it took too long."""

    study: PlannedStudy
    actor: Any
    began: float
    overdue: bool = False


def loss_reason(error: Exception) -> str:
    """Why a worker was lost, in a few words, from what Ray says.

    Killed by Ray for memory, gone with its node, or killed by something else (Ray cannot see the system's own
    out-of-memory killer).
    """
    said = " ".join(str(error).split())
    if any(words in said.lower() for words in ("low on memory", "out of memory (oom)", "node_out_of_memory")):
        return "Ray killed it because the machine ran out of memory; use fewer workers"
    if "node" in said and any(
        words in said for words in ("node was terminated", "node has died", "node died", "owner has died")
    ):
        return "its node is gone"
    return "its process was killed or crashed (the system's out-of-memory killer?)"


class _Pool:
    """The queue of studies and the workers: starting, busy with a study, or free."""

    def __init__(
        self, ray: Any, planned: Sequence[PlannedStudy], out: Path, tell: Tell, seconds: float | None = None
    ) -> None:
        from ray.util.queue import Queue

        self.ray, self.out, self.tell, self.seconds = ray, out, tell, seconds
        self.queue = deque(planned)
        self.losses: Counter[str] = Counter()
        self.starting: dict[Any, Any] = {}
        self.waiting_since = time.monotonic()
        self.busy: dict[Any, _Given] = {}
        self.free: list[Any] = []
        self.holds: dict[Any, ModelSettings] = {}
        #: The state of the running studies. A process of Ray's own, which has nothing of ours to import.
        self.news = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})

    def run(self, workers: int, threads: int, gpus: float) -> Iterator[StudyOutcome]:
        made = self.ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1)(RayWorker)
        for _ in range(workers):
            self._start(made.remote(threads, self.seconds, self.news, gpus or 1.0))
        while self.queue or self.busy:
            self._give()
            ended, _ = self.ray.wait([*self.starting, *self.busy], timeout=SHOWN_EVERY)
            self._show()
            self._stop_overdue()
            self._stop_without_workers(START)
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
            self.busy[actor.run.remote(self.out, p.key, p.study)] = _Given(p, actor, time.monotonic())

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
        given = self.busy.pop(ref)
        try:
            outcome = self.ray.get(ref)
        except lost as error:
            self.holds.pop(given.actor, None)
            self._start(given.actor)
            return (
                self._failed(given.study, over_limit(self.seconds))
                if given.overdue
                else self._lost(given.study, error)
            )
        self.free.append(given.actor)
        return outcome

    def _lost(self, p: PlannedStudy, error: Exception) -> StudyOutcome | None:
        """Back to the head of the queue; listed as failed after too many losses."""
        self.losses[p.key] += 1
        if self.losses[p.key] < LOSSES:
            self.queue.appendleft(p)
            return None
        return self._failed(p, f"its worker was lost {LOSSES} times: {loss_reason(error)}")

    def _stop_overdue(self) -> None:
        """A study that does not end at its limit by itself (it is inside a library) loses its worker."""
        for ref, given in list(self.busy.items()):
            if (
                self.seconds is not None
                and not given.overdue
                and time.monotonic() - given.began > self.seconds + GRACE
            ):
                self.busy[ref] = replace(given, overdue=True)
                self.ray.kill(given.actor, no_restart=False)

    def _stop_without_workers(self, limit: float) -> None:
        """Ends a sweep none of whose workers gets ready; what is done stays, and a resumed sweep goes on."""
        if self.busy or self.free or not self.starting:
            self.waiting_since = time.monotonic()
        elif time.monotonic() - self.waiting_since > limit:
            for actor in self.starting.values():
                self.ray.kill(actor, no_restart=True)
            raise UserError(
                f"no worker was ready within {limit:.0f} s (Ray kills and restarts workers where a machine's memory is nearly full): free "
                "memory or use fewer workers, then go on with --resume"
            )

    def _failed(self, p: PlannedStudy, reason: str) -> StudyOutcome:
        if (run_path(self.out, p.key) / "manifest.json").exists():
            write_failure(RunDirectory.open(run_path(self.out, p.key)), reason)
        return StudyOutcome(p.key, "failed", reason)

    def _no_worker(self, error: Exception) -> None:
        """A worker that could not even begin; the others go on, if there are any."""
        if not (self.starting or self.busy or self.free):
            raise UserError(f"no worker could be started: {' '.join(str(error).split())[:400]}") from error

    def _show(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            latest = {
                key: (stage, share) for key, stage, share in self.news.get_nowait_batch(self.news.qsize())
            }
            for key, (stage, share) in latest.items():
                self.tell(key, stage, share)
