"""The other side of `search_processes.py`: a process that computes searches of a run which it is given by name.

It reads what earlier stages left in the run directory and writes the searches' own files. What it has to tell
is a line of JSON on its standard output: `ready`; `begin`, `step` and `done` of a search; `refused` where a
search ends with a UserError; `ended` for anything else that ends it. It ends when its input does, so that it
never outlives the process that started it.
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
    """Computes the searches that standard input names, a line each. Ends the process, not only the call.

    Args:
        run: The run directory.
        loading: Threads of torch while the study is loaded, as in the process that began it.
        searching: Threads of torch while searches are computed.
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
    """Input that ends means that nothing is left to do, or nobody is left to do it for."""
    for line in sys.stdin:
        names.put(line.strip())
    os._exit(0)


def _own_output() -> Tell:
    """What tells messages; whatever libraries print goes to the error output from here on."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(kind: str, **fields: Any) -> None:
        print(json.dumps({"kind": kind} | fields), file=output, flush=True)

    return tell


def _context(directory: RunDirectory, tell: Tell) -> StudyContext:
    """The study as far as its run directory has it; nothing is written."""

    def watch(stage: str, progress: SearchProgress) -> None:
        tell("step", stage=stage, progress=progress_to(progress))

    return StudyContext.reopened(directory, watch)


def _searches(context: StudyContext) -> dict[str, SearchStage]:
    """The study's searches by name, from what the stages before them left."""
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
