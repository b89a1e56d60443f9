"""What one worker does: studies one after another, the model loaded once for all that share it.

1. A study that another process holds is waited for a little (a worker that was thought lost may still be
   ending), then left to it.
2. The run directory is made or resumed; `workbench.study.run_study` does the stages that are not done.
3. What goes wrong is written into the run directory as one line with its traceback, and the next study
   begins.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models import load_model
from workbench.models.memory_in_use import DeviceLostError
from workbench.runs import RunDirectory
from workbench.study import Study, run
from workbench.study.study_settings import ModelSettings
from workbench.sweep.sweep_store import StudyOutcome, forget_failure, is_free, look, run_path, write_failure
from workbench.sweep.time_limit import TimeLimitReached, time_limit

#: Told of a study's key, its stage, and how much of the stage is done, 0 to 1.
Tell = Callable[[str, str, float], None]
#: Seconds that a run held by another process is waited for.
PATIENCE = 30.0


class StudyWorker:
    """Runs one study after the other; one model is held at a time, the last study's.

    threads: of torch's sums, on which their last bits depend; seconds: limit of each study, None for no
    limit.
    """

    def __init__(self, threads: int, seconds: float | None = None) -> None:
        torch.set_num_threads(threads)
        self.threads, self.seconds = threads, seconds
        self._held: tuple[ModelSettings, Any] | None = None

    def run(self, out: Path, key: str, study: Study, tell: Tell) -> StudyOutcome:
        """Run or resume one study; never raises for what the study does wrong.

        Raises:
            DeviceLostError: The GPU does nothing more for this process; the study can be resumed by another.
        """
        path = run_path(out, key)
        try:
            directory = replace(
                RunDirectory.create(path, resume=True), made=None
            )  # a refused study keeps it, with the reason
        except UserError as error:
            return StudyOutcome(key, "failed", str(error))
        if not _await_free(directory):
            return StudyOutcome(key, "busy", "another process works on it")
        forget_failure(directory)
        directory.log(
            "worker",
            {
                "pid": os.getpid(),
                "threads": self.threads,
                "model": "held" if self._holds(study.model) else "loaded",
            },
        )
        try:
            with time_limit(self.seconds) as check:
                run(
                    study,
                    directory,
                    resume=True,
                    report=lambda stage, share: (check(), tell(key, stage, share))[1],
                    model=self._model(study.model),
                )
        except TimeLimitReached:
            write_failure(directory, over_limit(self.seconds))
        except DeviceLostError as error:
            self._held = None
            write_failure(directory, str(error))
            raise
        except UserError as error:
            write_failure(directory, str(error))
        except Exception as error:
            self._held = None  # whatever state it is in
            write_failure(
                directory, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc()
            )
        return look(out, key)

    def _holds(self, wanted: ModelSettings) -> bool:
        return self._held is not None and self._held[0] == wanted

    def _model(self, wanted: ModelSettings) -> Any:
        if not self._holds(wanted):
            self._held = None  # before the next is loaded: two may not fit
            self._held = (
                wanted,
                load_model(wanted.name, wanted.device, wanted.dtype, wanted.backend, wanted.revision),
            )
        assert self._held is not None
        return self._held[1]


def over_limit(seconds: float | None) -> str:
    """Why a study failed that took too long; its finished stages are kept."""
    return (
        f"stopped after study_seconds ({seconds:g} s); --rerun-failed resumes it, give it more seconds then"
    )


def _await_free(directory: RunDirectory) -> bool:
    end = time.monotonic() + PATIENCE
    while not is_free(directory):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True
