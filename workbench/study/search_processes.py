"""Independent searches of a study in several processes, one thread or more each, on a CPU.

1. The threads that torch has are divided: as many searches at a time as there are threads, and as fit into
   the memory (`Division.of`). Each search has the same number of threads whichever process runs it, so that a
   run, its resumption and any other order give the same bits.
2. This process computes one search after the other. Once it is clear that the rest takes longer than another
   process needs to start, it starts one for each further part (`search_worker.py`), which loads what the run
   directory has and computes searches that nobody has begun.
3. Manifest, log and progress are written by this process alone; a search's own files and its checkpoint by
   the process that computes it. What a lost process has not finished is computed here.
4. Whatever ends this process ends the others: they are killed, and their standard input closes.
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
from dataclasses import dataclass, replace
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models.memory_in_use import free_memory, machine_memory
from workbench.schema import TimingsFile
from workbench.search.search_progress import progress_from
from workbench.study.context import StudyContext
from workbench.study.cost_estimate import search_bytes
from workbench.study.stages.stage import Stage

#: Seconds of searching that must be left for another process to pay for its start.
WORTH_STARTING = 15.0
#: Fraction of the machine's memory that all processes may hold.
MEMORY_FRACTION = 0.8
#: What another process runs: its first line of input says where its modules are and what it works on.
_PROGRAM = """
import json, sys
begin = json.loads(sys.stdin.readline())
sys.path[:] = begin["path"]
from workbench.study.search_worker import work
work(begin["run"], begin["loading"], begin["searching"])
"""
#: A message of another process, and which one said it.
Message = tuple["SearchProcess", dict[str, Any]]


@dataclass(frozen=True)
class Division:
    """How many searches run at a time, and the threads of each.

    Example:
        >>> Division.of(threads=8, searches=3, need=2, memory=100)
        Division(processes=3, threads=2)
        >>> Division.of(threads=8, searches=3, need=60, memory=100)
        Division(processes=1, threads=8)
    """

    processes: int
    threads: int

    @classmethod
    def of(cls, threads: int, searches: int, need: float, memory: float) -> Division:
        """As many processes as there are searches, threads, and room for.

        Args:
            threads: Of this process.
            searches: Of the study, finished ones included: a resumed run has the same division.
            need: Bytes of one process.
            memory: Bytes of the machine.

        Returns:
            The division; one process where no two fit.
        """
        room = int(MEMORY_FRACTION * memory / need)
        processes = max(1, min(threads, searches, room))
        return cls(processes, threads // processes)


def run_searches(context: StudyContext, stages: Sequence[Stage]) -> StudyContext:
    """Computes what is not done yet, in several processes where that is possible, and loads it.

    Args:
        context: The study after its directions and latents.
        stages: Its searches.

    Returns:
        The context with every search's frontier.
    """
    division, need = _division(context, stages)
    if division.processes > 1:
        with SearchProcesses(context, stages, division, need) as searches:
            searches.run()
    for stage in stages:
        context = stage.run(context)
    return context


def _division(context: StudyContext, stages: Sequence[Stage]) -> tuple[Division, float]:
    """How the searches are divided, and the bytes of a process.

    One process for a GPU, for a model that was given to this process, and for a budget of seconds, which would
    buy fewer steps.
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
    """This process and the others, while a study's searches are computed."""

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
        """Ends when every search is done. UserError where one of them, in this process or another, ends so."""
        busy = True
        while busy or self._waiting:
            while (stage := self._next()) is not None:
                stage.run(self._context)
            # looked at before the messages are read: what a process says comes before it is without a search
            busy = any(process.stage for process in self._processes)
            self._listen(patience=0.2 if busy else 0.0)
        self._outer.directory.sort_stages(list(self._stages))

    def _next(self) -> Stage | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _report(self, stage: str, share: float) -> None:
        """Called after each step of a search in this process."""
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
        """As many processes as there is work and, at this moment, memory for."""
        free, directory = free_memory(self._outer.runner.device), self._outer.directory
        fitting = self.division.processes if free is None else int(free / self.need)
        for _ in range(min(self.division.processes - 1, len(self._waiting), fitting)):
            begin = {"run": str(directory.path), "searching": self.division.threads, "loading": self._loading}
            self._processes.append(SearchProcess(begin, self._next, self._messages))

    def _listen(self, patience: float = 0.0) -> None:
        """Writes down what the other processes have said; waits a little for the first message."""
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
    """Another process: it gets a search whenever it has none; what it says goes into a queue.

    pid: Its process id. stage: The search that it was given and has not finished, "" for none.
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
        """Ends it at once; its search goes on from the last checkpoint when the run is resumed."""
        self._process.kill()
        self._process.wait()

    def _attend(self) -> None:
        """Passes on what it says, and gives it the next search when it is ready for one."""
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
        """The next search; without one its input is closed, which ends it."""
        stage = self._next()
        self.stage = stage.name if stage else ""
        self._say(self.stage)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended; `_attend` says so
            if line:
                print(line, file=self._process.stdin, flush=True)
            else:
                self._process.stdin.close()

    def _last_words(self) -> str:
        """Its exit code, and the last line of its error output."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1][:300]}" if lines else "")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside never gets Ctrl-C, which a terminal sends to all: this process ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
