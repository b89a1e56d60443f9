"""The work of one worker: it runs studies one after another and keeps the model loaded while they share it.

1. If another process holds a study's run directory, the worker waits a short time (a worker that was thought
   lost may still be ending) and then leaves the study to that process.
2. The run directory is created or resumed, and `workbench.study.run_study` runs the stages that are not done.
3. An error is written into the run directory as one line with its traceback, and the next study begins.
"""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models import load_model
from workbench.models.memory_in_use import DeviceLostError
from workbench.runs import RunDirectory
from workbench.study import Study, run
from workbench.study.room_for_study import refuse_without_room
from workbench.study.study_settings import ModelSettings
from workbench.sweep.sweep_store import StudyOutcome, forget_failure, is_free, look, run_path, write_failure
from workbench.sweep.time_limit import TimeLimitReached, time_limit

#: Function that receives a study's key, its stage, and the fraction of the stage that is done, 0 to 1.
Tell = Callable[[str, str, float], None]
#: Seconds to wait for a run directory that another process holds.
PATIENCE = 30.0


class StudyWorker:
    """Runs studies one after another and keeps the last study's model loaded.

    Args:
        threads: Number of torch threads, on which the last bits of the results depend.
        seconds: Time limit of each study; None for no limit.
    """

    def __init__(self, threads: int, seconds: float | None = None) -> None:
        torch.set_num_threads(threads)
        self.threads, self.seconds = threads, seconds
        self._held: tuple[ModelSettings, Any] | None = None

    def run(self, out: Path, key: str, study: Study, tell: Tell) -> StudyOutcome:
        """Run or resume one study; its errors are recorded in its run directory instead of being raised.

        Args:
            out: Directory of the sweep.
            key: Key of the study.
            study: The study.
            tell: Function that is called with (key, stage, fraction done) to show the progress of the study.

        Returns:
            The study's state.

        Raises:
            DeviceLostError: The GPU no longer works for this process; another process can resume the study.
        """
        path = run_path(out, key)
        try:
            directory = replace(
                RunDirectory.create(path, resume=True), made=None
            )  # the directory of a refused study is kept, with the reason
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
                    model=self._model(study, directory.manifest().stages),
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
            self._held = None  # its state is unknown after an error
            write_failure(
                directory, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc()
            )
        return look(out, key)

    def _holds(self, wanted: ModelSettings) -> bool:
        return self._held is not None and self._held[0] == wanted

    def _model(self, study: Study, done: Collection[str]) -> Any:
        """Return the study's model, held or loaded, if the stages that are not done fit into its GPU."""
        wanted = study.model
        if self._held is not None and not self._holds(wanted):
            self._held = None  # free it before the next model is loaded: two may not fit
            gc.collect()
        refuse_without_room(study, done, self._held and self._held[1])
        if self._held is None:
            self._held = (
                wanted,
                load_model(wanted.name, wanted.device, wanted.dtype, wanted.backend, wanted.revision),
            )
        return self._held[1]


def over_limit(seconds: float | None) -> str:
    """Return the reason recorded for a study that exceeded its time limit; its finished stages are kept."""
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
