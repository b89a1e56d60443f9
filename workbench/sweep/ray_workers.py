"""Run studies with several workers, on this machine or on a Ray cluster.

Ray starts, places and restarts the workers; this module gives them studies.
1. Each worker is an actor with one CPU and, for studies on CUDA, the fraction of a GPU that their planned
   memory needs (`gpus_of_a_worker`), or several whole GPUs for a model that is spread over them. If the GPUs
   of the cluster differ, the smallest counts, because Ray may place a worker on any of them. A worker keeps
   the model that it loaded last.
2. A free worker gets the next study of the model that it holds, or else the next study.
3. Ray restarts a worker whose process or node is lost. The worker's study returns to the front of the queue
   and is resumed from its run directory by the worker that is free first. (A worker whose GPU is lost ends
   itself.) A study that lost its worker three times is listed as failed, because it may be the cause.
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
from workbench.study.cost_estimate import counted
from workbench.study.room_for_study import refuse_plan
from workbench.study.study_settings import ModelSettings
from workbench.sweep.ray_cluster import connected, gpu_memories
from workbench.sweep.resolve_studies import PlannedStudy
from workbench.sweep.study_worker import StudyWorker, Tell, over_limit
from workbench.sweep.sweep_store import StudyOutcome, run_path, write_failure

#: Number of lost workers after which a study is given up.
LOSSES = 3
#: Seconds after a study's time limit in which its worker may still end it regularly.
GRACE = 60.0
#: Seconds between two updates of the state of the running studies; each call through Ray costs a millisecond
#: or more on cores that the workers need.
SHOWN_EVERY = 2.0
#: Seconds within which the first worker must be ready: on a machine without enough memory Ray kills and
#: restarts workers for ever.
START = 600.0
#: Largest number of workers that share a GPU, since each needs memory for its CUDA context.
MOST_ON_ONE = 8


class RayWorker:
    """A worker that runs one study after another (`StudyWorker`), as an actor of a Ray cluster."""

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
        """Return True; Ray answers the call once the worker's process runs."""
        return True

    def run(self, out: Path, key: str, study: Study) -> StudyOutcome:
        """Run one study and return its outcome, like `StudyWorker.run`.

        If the GPU no longer works, this process ends, and Ray starts a new one.
        """
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
    """Settings of a sweep's workers.

    Attributes:
        workers: Number of workers; None for all of the cluster's GPUs or CPUs.
        threads: Number of torch threads of each worker.
        address: Address of a cluster; None for this machine.
        seconds: Time limit of each study; None for no limit.
    """

    workers: int | None
    threads: int
    address: str | None = None
    seconds: float | None = None


def gpus_of_a_worker(
    planned: Sequence[PlannedStudy], memory: int | None, needed: Callable[[Study], int]
) -> float:
    """Return the number of GPUs, or the fraction of one, that a worker holds; 0 without CUDA.

    Args:
        planned: The studies.
        memory: Bytes of memory of one GPU, the smallest if they differ. If it is not known (None), each
            worker holds one whole GPU.
        needed: Function from a study to its planned peak memory on a GPU in bytes.

    Returns:
        Number of GPUs. A study with a higher peak than one GPU has, whose model is not spread over several,
        gets one: its searches shrink to it (`refuse_studies_without_room` tests whether that suffices).
    """
    wanted = _on_gpus(planned)
    if not wanted:
        return 0
    several = any(spreads(study.model.device) for study in wanted)
    if memory is None:
        return 1
    peak, room = max(needed(study) for study in wanted), USABLE * memory
    if several:
        return max(1, -(-peak // int(room)))
    return 1 if 2 * peak > room else 1 / min(MOST_ON_ONE, int(room // peak))


def refuse_studies_without_room(planned: Sequence[PlannedStudy], memories: Sequence[int]) -> None:
    """Raise UserError if the smallest GPU, on which any study may be placed, is too small for a study.

    Args:
        planned: The studies.
        memories: Bytes of memory of each GPU; empty if they are not known.

    Raises:
        UserError: A study on one GPU needs more memory than that; the message says what would fit.
    """
    if not memories:
        return
    least, most = min(memories), max(memories)
    others = f" (another has {most / 1e9:.1f} GB)" if most > least else ""
    for study in _on_gpus(planned):
        if not spreads(study.model.device):
            refuse_plan(study, least, f"a GPU of {least / 1e9:.1f} GB{others}")


def _on_gpus(planned: Sequence[PlannedStudy]) -> list[Study]:
    return [
        p.study for p in planned if p.study.model.device.startswith("cuda") or spreads(p.study.model.device)
    ]


def run_pool(
    planned: Sequence[PlannedStudy], out: Path, asked: WorkerPool, tell: Tell
) -> Iterator[StudyOutcome]:
    """Run studies with several worker processes, and yield each outcome when its study ends.

    Args:
        planned: The studies.
        out: Directory of the sweep.
        asked: Settings of the workers.
        tell: Function that is called with (key, stage, fraction done) to show the progress of a study.

    Yields:
        One outcome per study.

    Raises:
        UserError: The cluster has no CPU or too few GPUs for a worker, a GPU is too small for a study, or no
            worker can start.
    """
    with connected(asked.workers, asked.address) as ray:
        memories = gpu_memories(ray, asked.address is None) if _on_gpus(planned) else []
        refuse_studies_without_room(planned, memories)
        gpus = gpus_of_a_worker(planned, min(memories, default=None), _planned_peak)
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
    """Return the peak memory of a study's plan on a GPU in bytes."""
    return counted(study).peak(study.model.dtype, study.search.batch_tokens)


@dataclass(frozen=True)
class _Given:
    """A running study: its worker, its start time, and whether it was stopped for taking too long."""

    study: PlannedStudy
    actor: Any
    began: float
    overdue: bool = False


def loss_reason(error: Exception) -> str:
    """Explain in a few words, from Ray's error, why a worker was lost.

    It was killed by Ray for memory, lost with its node, or killed by something else (Ray cannot see the
    system's own out-of-memory killer).

    Args:
        error: Ray's exception.

    Returns:
        The reason.
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
    """The queue of studies, and the workers that are starting, busy with a study, or free."""

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
        #: Queue with the state of the running studies, in a Ray process that need not import the workbench.
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
        """Wait for a worker to answer, after which it is free.

        Ray repeats the call while the worker restarts.
        """
        self.starting[actor.ready.options(max_task_retries=-1).remote()] = actor

    def _give(self) -> None:
        """Give each free worker a study, if possible of the model that it holds."""
        while self.free and self.queue:
            actor = self.free.pop()
            p = next((p for p in self.queue if p.study.model == self.holds.get(actor)), self.queue[0])
            self.queue.remove(p)
            self.holds[actor] = p.study.model
            self.busy[actor.run.remote(self.out, p.key, p.study)] = _Given(p, actor, time.monotonic())

    def _end(self, ref: Any) -> StudyOutcome | None:
        """Handle the answer of a worker: it is ready, a study has ended, or the worker is lost."""
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
        """Put a lost worker's study at the front of the queue; after too many losses list it as failed."""
        self.losses[p.key] += 1
        if self.losses[p.key] < LOSSES:
            self.queue.appendleft(p)
            return None
        return self._failed(p, f"its worker was lost {LOSSES} times: {loss_reason(error)}")

    def _stop_overdue(self) -> None:
        """Kill the worker of a study that does not stop at its time limit, for example inside a library."""
        for ref, given in list(self.busy.items()):
            if (
                self.seconds is not None
                and not given.overdue
                and time.monotonic() - given.began > self.seconds + GRACE
            ):
                self.busy[ref] = replace(given, overdue=True)
                self.ray.kill(given.actor, no_restart=False)

    def _stop_without_workers(self, limit: float) -> None:
        """Raise a UserError if no worker becomes ready.

        Finished studies remain, and the sweep can be resumed.
        """
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
        """Handle a worker that could not start: raise a UserError if there is no other, else continue."""
        if not (self.starting or self.busy or self.free):
            raise UserError(f"no worker could be started: {' '.join(str(error).split())[:400]}") from error

    def _show(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            latest = {
                key: (stage, share) for key, stage, share in self.news.get_nowait_batch(self.news.qsize())
            }
            for key, (stage, share) in latest.items():
                self.tell(key, stage, share)
