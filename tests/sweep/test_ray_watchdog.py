"""What a Ray of our own starts ends with its driver, also when that is killed. (`sleep` stands for Ray's processes.)"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.sweep.ray_watchdog import MARK, RayWatchdog

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
DRIVER = """
import subprocess, time
from workbench.sweep.ray_watchdog import RayWatchdog
dog = RayWatchdog()
with dog.marking():
    own = subprocess.Popen(["sh", "-c", "setsid sleep 300 & echo $!; sleep 300"], start_new_session=True, stdout=subprocess.PIPE)
    worker = own.stdout.readline().decode().strip()
other = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(own.pid, worker, other.pid, flush=True)
time.sleep(300)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone_within(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(map(_alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_marked_dies_with_its_driver_and_nothing_else_does(number):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE)
    own, worker, other = map(int, driver.stdout.readline().split())
    try:
        assert all(map(_alive, (own, worker, other)))
        driver.send_signal(number)
        driver.wait(30)
        assert _gone_within([own, worker], 10) and _alive(other)
    finally:
        os.kill(other, signal.SIGKILL)
        driver.stdout.close()


def test_closing_ends_what_is_left_and_the_mark_is_gone():
    dog = RayWatchdog()
    with dog.marking():
        left = subprocess.Popen(["sleep", "300"], start_new_session=True)
    assert MARK not in os.environ
    dog.close()
    assert left.wait(10) == -signal.SIGKILL


def test_a_marked_process_s_child_without_the_mark_ends_too_though_its_parent_is_gone_first():
    """Ray's agents write their title over their environment, so that the mark is not in /proc, and their parent dies with the driver."""
    dog = RayWatchdog()
    with dog.marking():
        parent = subprocess.Popen(
            ["sh", "-c", "env -i sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
        )
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
        time.sleep(0.05)  # it is a copy of the shell first, then `env`
    assert MARK.encode() not in Path(f"/proc/{child}/environ").read_bytes()
    time.sleep(5)  # it looks once a second
    parent.kill()
    parent.wait(10)
    assert _alive(child)
    dog.close()
    assert _gone_within([child], 10)
    parent.stdout.close()
