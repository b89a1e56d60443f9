"""One worker: this process. Nothing else is needed, and Ray is not imported."""

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
    """Ctrl-C during a sweep.

    Not KeyboardInterrupt: a search takes that as the order to end early with what it has, and its study would
    be called done.
    """


def run_here(
    planned: Sequence[PlannedStudy], out: Path, threads: int, seconds: float | None, tell: Tell
) -> Iterator[StudyOutcome]:
    """Every study in turn. KeyboardInterrupt leaves the study at hand to be resumed. Torch has its own number of threads afterwards."""
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
