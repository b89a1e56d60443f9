"""End the processes of a private Ray when the process that started it has ended, in whatever way.

Ray leaves its head, node manager and monitors running if their driver is killed. So they are started with a
mark in their environment, which their workers inherit. A small process waits at a pipe that closes with the
driver, and then kills every process with the mark and its descendants. It finds them in /proc, so it works on
Linux only.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "WORKBENCH_RAY_OF"
_WAIT_AND_KILL = """
import os, select, signal, sys, time
mark = sys.argv[1].encode()
known = {}  # pid: when it was started

def look():
    # What has the mark, and what such a process has started: Ray's agents write their title over their environment.
    found, parents, begun = set(), {}, {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            parents[pid], begun[pid] = int(fields[1]), fields[19]
            if known.get(pid) == begun[pid] and fields[0] != b"Z":
                found.add(pid)
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mark in file.read().split(bytes(1)):
                    found.add(pid)
        except OSError:
            pass
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    known.update((pid, begun[pid]) for pid in found)
    return found

# Their parent dies with the driver, before anybody can ask it for its children: they are noted while it lives.
while not select.select([sys.stdin], [], [], 1.0)[0]:
    look()
quiet = 0
for _ in range(20):
    found = look()
    # A process that has just been started has no environment yet: one empty look is no proof.
    quiet = 0 if found else quiet + 1
    if quiet == 4:
        break
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.25)
"""


class RayWatchdog:
    """Kills Ray's processes when this process ends, even if it crashes, or when `close` is called.

    It kills those that were started inside a `marking()` block.
    """

    def __init__(self) -> None:
        self._value = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._process: subprocess.Popen[bytes] | None = None
        if Path("/proc/self/environ").exists():
            command = [sys.executable, "-I", "-S", "-c", _WAIT_AND_KILL, f"{MARK}={self._value}"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Mark all processes that are started inside the `with` block, so that the watchdog can end them.

        The mark is an environment variable, which their descendants inherit.
        """
        os.environ[MARK] = self._value
        try:
            yield
        finally:
            del os.environ[MARK]

    def close(self) -> None:
        """Kill all remaining processes that were started inside `marking()`."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
