"""Run the independent searches of a study in several processes on a CPU.

1. The torch threads are divided (`search_division.py`): as many searches run at a time as there are threads, and as
   fit into the memory. Each search has the same number of threads in whichever process it runs, so that a
   run, a resumed run and any other order give identical results.
2. The main process computes one search after the other. When the remaining searches clearly take longer than
   starting another process, it starts further processes (`search_worker.py`), which load the run directory
   and compute searches that no process has begun.
3. Only the main process writes manifest, log and progress. Each process writes the files and the checkpoint
   of its own searches. If a process is lost, the main process computes its unfinished search.
4. Whatever ends the main process ends the others: they are killed, and their standard input closes.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models.memory_in_use import free_memory, machine_memory
from workbench.schema import TimingsFile
from workbench.search.search_progress import progress_from
from workbench.study.context import StudyContext
from workbench.study.cost_estimate import search_bytes
from workbench.study.search_division import Division
from workbench.study.stages.stage import Stage

#: Seconds of remaining search time above which starting another process is worth its cost.
WORTH_STARTING = 15.0
#: Program of another process. Its first line of input gives module path, run and numbers of threads.
_PROGRAM = """
import json, sys
begin = json.loads(sys.stdin.readline())
sys.path[:] = begin["path"]
from workbench.study.search_worker import work
work(begin["run"], begin["loading"], begin["searching"])
"""
#: Another process and a message from it.
Message = tuple["SearchProcess", dict[str, Any]]


def run_searches(context: StudyContext, stages: Sequence[Stage]) -> StudyContext:
    """Compute the searches that are not done yet, in several processes if possible, and load all results.

    Args:
        context: State of the study; its directions and latents must have been found.
        stages: One stage for each search.

    Returns:
        The state with the prompts that every search found.
    """
    division, need = _division(context, stages)
    if division.processes > 1:
        with SearchProcesses(context, stages, division, need) as searches:
            searches.run()
    for stage in stages:
        context = stage.run(context)
    return context


def _division(context: StudyContext, stages: Sequence[Stage]) -> tuple[Division, float]:
    """Return the division of the searches, and the memory of one process in bytes.

    There is only one process on a GPU, with a model that was passed to this process, and with a budget of
    seconds (which would buy fewer steps in parallel).
    """
    threads, memory = torch.get_num_threads(), machine_memory()
    alone = Division(1, threads), 0.0
    if context.runner.device.type != "cpu" or context.study.search.budget.seconds is not None:
        return alone
    if not (context.loaded_here and sys.executable and memory) or min(threads, len(stages)) < 2:
        return alone
    try:
        need = search_bytes(context.study)
    except UserError:  # the plan does not know a model of this kind
        return alone
    return Division.of(threads, len(stages), need, memory), need


class SearchProcesses:
    """The main process and its search processes, while a study's searches are computed."""

    def __init__(
        self, context: StudyContext, stages: Sequence[Stage], division: Division, need: float
    ) -> None:
        self.division, self.need = division, need
        self._outer, self._stages = context, {stage.name: stage for stage in stages}
        self._context = replace(context, report=self._report)
        self._waiting = deque(stage for stage in stages if not stage.is_done(context))
        self._messages: queue.Queue[Message] = queue.Queue()
        self._processes: list[SearchProcess] = []
        self._loading = torch.get_num_threads()  # an SAE's own figures depend on it in the last digits
        self._first: tuple[str, float, float] = "", 0.0, 0.0

    def __enter__(self) -> SearchProcesses:
        torch.set_num_threads(self.division.threads)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
        torch.set_num_threads(self._loading)

    def run(self) -> None:
        """Compute all searches and return when every one is done.

        Raises:
            UserError: A search ended with this error, in this process or in another.
        """
        busy = True
        while busy or self._waiting:
            while (stage := self._next()) is not None:
                stage.run(self._context)
            # checked before messages are read: a process sends its last message before its search is cleared
            busy = any(process.stage for process in self._processes)
            self._listen(patience=0.2 if busy else 0.0)
        self._outer.directory.sort_stages(list(self._stages))

    def _next(self) -> Stage | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _report(self, stage: str, share: float) -> None:
        """Report a step of a search in this process, and start other processes if that is worthwhile."""
        self._outer.report(stage, share)
        self._listen()
        name, began, before = self._first
        if name != stage:
            self._first = stage, time.monotonic(), share
        elif share > before and not self._processes:
            each = (time.monotonic() - began) / (share - before)
            if each * (1 - share + len(self._waiting)) >= WORTH_STARTING:
                self._start()

    def _start(self) -> None:
        """Start as many processes as there are waiting searches and free memory at this moment."""
        free, directory = free_memory(self._outer.runner.device), self._outer.directory
        fitting = self.division.processes if free is None else int(free / self.need)
        for _ in range(min(self.division.processes - 1, len(self._waiting), fitting)):
            begin = {"run": str(directory.path), "searching": self.division.threads, "loading": self._loading}
            self._processes.append(SearchProcess(begin, self._next, self._messages))

    def _listen(self, patience: float = 0.0) -> None:
        """Handle the messages of the other processes; wait up to `patience` seconds for the first one."""
        with suppress(queue.Empty):
            self._take(*self._messages.get(timeout=patience) if patience else self._messages.get_nowait())
            while True:
                self._take(*self._messages.get_nowait())

    def _take(self, process: SearchProcess, said: dict[str, Any]) -> None:
        directory, kind, name = self._outer.directory, said["kind"], said.get("stage", "")
        if kind == "begin":
            self._outer.report(name, 0.0)
            directory.log("begin", {"stage": name, "process": process.pid})
        elif kind == "step":
            self._outer.progress(name)(progress_from(said["progress"]))
        elif kind == "done":
            files, seconds = self._stages[name].files(self._outer), said["seconds"]
            directory.mark_done(name, seconds, files, said["flops"], said["peak_memory_mb"])
            directory.note_times(TimingsFile.model_validate(said["times"]))
            directory.log("done", {"stage": name, "seconds": round(seconds, 3), "process": process.pid})
            self._outer.report(name, 1.0)
        elif kind == "refused":
            raise UserError(said["text"])
        elif kind == "ended":
            directory.log("search process ended", {"process": process.pid, "reason": said["text"]})
            if name:
                self._waiting.appendleft(self._stages[name])


class SearchProcess:
    """Another process, which gets a new search whenever it has none, and whose messages go into a queue.

    Attributes:
        pid: Process id.
        stage: Name of the search that it computes; empty for none.
    """

    def __init__(
        self, begin: dict[str, Any], next_stage: Callable[[], Stage | None], messages: queue.Queue[Message]
    ) -> None:
        self.stage = ""
        self._next, self._messages = next_stage, messages
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with _without_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
            )
        self.pid = self._process.pid
        self._say(json.dumps({"path": sys.path} | begin))
        threading.Thread(target=self._attend, daemon=True).start()

    def kill(self) -> None:
        """Kill the process; its search continues from the last checkpoint when the run is resumed."""
        self._process.kill()
        self._process.wait()

    def _attend(self) -> None:
        """Put the process's messages into the queue, and give it the next search when it is ready."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if said["kind"] == "ended":
                break
            self._messages.put((self, said))
            if said["kind"] in ("ready", "done"):
                self._give()
        else:
            said = {"text": self._last_words()}
        if self.stage or self._process.wait():
            self._messages.put((self, {"kind": "ended", "stage": self.stage, "text": said["text"]}))
        self.stage = ""

    def _give(self) -> None:
        """Give the process its next search; without one, close its input, which ends the process."""
        stage = self._next()
        self.stage = stage.name if stage else ""
        self._say(self.stage)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the process has ended; `_attend` reports it
            if line:
                print(line, file=self._process.stdin, flush=True)
            else:
                self._process.stdin.close()

    def _last_words(self) -> str:
        """Return the process's exit code and the last line of its error output."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1][:300]}" if lines else "")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT, so that a process started inside the `with` block never gets Ctrl-C from the terminal.

    The main process ends it instead.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
