"""Worker process that computes searches of a run for `search_processes.py`.

It reads what earlier stages wrote to the run directory, and writes the searches' own files. It receives the
names of searches on standard input and sends messages as lines of JSON on standard output: `ready`; `begin`,
`step` and `done` of a search; `refused` if a search ends with a UserError; `ended` for any other end. It ends
when its input ends, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.runs.run_directory import peak_memory_mb, reset_peak_memory
from workbench.search.search_progress import SearchProgress, progress_to
from workbench.study.context import StudyContext
from workbench.study.run_study import STAGES
from workbench.study.stages.search import SearchStage, search_stages
from workbench.study.stages.stage import Stage

Tell = Callable[..., None]


def work(run: str, loading: int, searching: int) -> None:
    """Run the searches whose names arrive on standard input, one per line, and then end the process.

    Args:
        run: The run directory.
        loading: Number of torch threads while the study is loaded. It is the same as in the process that
            began the study.
        searching: Number of torch threads while searches are computed.
    """
    tell = _own_output()
    names: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(names,), daemon=True).start()
    torch.set_num_threads(loading)
    try:
        context = _context(RunDirectory.open(Path(run)), tell)
        with context.rendering():
            stages = _searches(context)
            torch.set_num_threads(searching)
            tell("ready")
            while True:
                _search(context, stages[names.get()], tell)
    except BaseException as error:
        tell("ended", text=f"{type(error).__name__}: {error}"[:500])
        traceback.print_exc()
    os._exit(1)


def _read(names: queue.Queue[str]) -> None:
    """Put the lines of standard input into the queue, and end the process when the input ends.

    The input ends when no search is left, or when the main process has ended.
    """
    for line in sys.stdin:
        names.put(line.strip())
    os._exit(0)


def _own_output() -> Tell:
    """Return a function that sends messages; other output of this process then goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(kind: str, **fields: Any) -> None:
        print(json.dumps({"kind": kind} | fields), file=output, flush=True)

    return tell


def _context(directory: RunDirectory, tell: Tell) -> StudyContext:
    """Open the study of the run directory, as far as it is computed; nothing is written."""

    def watch(stage: str, progress: SearchProgress) -> None:
        tell("step", stage=stage, progress=progress_to(progress))

    return StudyContext.reopened(directory, watch)


def _searches(context: StudyContext) -> dict[str, SearchStage]:
    """Return the study's searches by name, from the files of the stages before them."""
    for entry in STAGES:
        if not isinstance(entry, Stage):
            break
        if entry.files(context):
            context = entry.load(context)
    return {stage.name: stage for stage in search_stages(context) if isinstance(stage, SearchStage)}


def _search(context: StudyContext, stage: SearchStage, tell: Tell) -> None:
    tell("begin", stage=stage.name)
    reset_peak_memory()
    start, before = time.perf_counter(), context.runner.meter.flops
    try:
        times = stage.compute_files(context)
    except UserError as error:
        tell("refused", stage=stage.name, text=str(error))
        return
    spent = {"seconds": time.perf_counter() - start, "flops": context.runner.meter.flops - before}
    tell("done", stage=stage.name, peak_memory_mb=peak_memory_mb(), times=times.to_json(), **spent)
