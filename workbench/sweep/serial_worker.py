"""Run the studies of a sweep one after another in this process, without Ray."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from workbench.sweep.resolve_studies import PlannedStudy
from workbench.sweep.study_worker import StudyWorker, Tell
from workbench.sweep.sweep_store import StudyOutcome


class _Stop(BaseException):
    """Raised by Ctrl-C during a sweep.

    It is no KeyboardInterrupt, because a search takes that as the order to end early with what it has, and
    the study would then count as done.
    """


def run_here(
    planned: Sequence[PlannedStudy], out: Path, threads: int, seconds: float | None, tell: Tell
) -> Iterator[StudyOutcome]:
    """Run the studies one after another in this process and yield their outcomes.

    KeyboardInterrupt interrupts the running study so that it can be resumed. Afterwards torch has its former
    number of threads.

    Args:
        planned: The studies.
        out: Directory of the sweep.
        threads: Number of torch threads.
        seconds: Time limit of each study; None for no limit.
        tell: Function that is called with (key, stage, fraction done) to show the progress of the study.

    Yields:
        One outcome per study.
    """
    before = torch.get_num_threads()
    worker = StudyWorker(threads, seconds)
    try:
        for p in planned:
            with _stoppable():
                outcome = worker.run(out, p.key, p.study, tell)
            yield outcome
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stoppable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _stop)
    try:
        yield
    except _Stop:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stop
