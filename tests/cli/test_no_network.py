"""No run asks the network for anything: every look-up of a name and every connection of a process is noted by an audit hook and refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        place = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        place = arguments[1][0] if isinstance(arguments[1], tuple) else "unix"
    else:
        return
    if str(place) not in ("127.0.0.1", "::1", "localhost", "unix", "None"):
        with open(sys.argv[1], "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise OSError(f"the network is cut off: {event} {place}")
sys.addaudithook(watch)
"""
RUN_REPORT_PANEL = """
import workbench as wb
from tests.faults.injected_faults import STUDY
from workbench.runs import RunDirectory
run = wb.run(STUDY, sys.argv[2])
wb.write_report(run.path)
panel = wb.Panel(wb.load_model("organism"), wb.load_persona("sycophancy"), prompt="be blunt", quick=1)
assert panel.readings[0]["text"] == "be blunt" and panel._repr_mimebundle_()
"""
DEMO = """
from workbench.cli import main
sys.argv = ["workbench", "demo", "--out", sys.argv[2]]
main()
"""


def _asked(code: str, place: Path) -> str:
    """What the code asked of the network, one line each."""
    asked = place / "asked"
    asked.touch()
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED + code, str(asked), str(place / "run")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return asked.read_text()


def test_the_hook_sees_what_is_asked(tmp_path: Path) -> None:
    code = (
        "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError:\n    pass\n"
    )
    assert "192.0.2.1" in _asked(code, tmp_path)


def test_a_run_its_report_and_the_panel_ask_nothing(tmp_path: Path) -> None:
    assert _asked(RUN_REPORT_PANEL, tmp_path) == ""


@pytest.mark.slow
def test_the_demo_asks_nothing(tmp_path: Path) -> None:
    assert _asked(DEMO, tmp_path) == ""
