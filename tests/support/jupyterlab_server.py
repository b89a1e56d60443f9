"""A JupyterLab server of a test's own, on loopback, with one notebook of one cell."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT


@contextmanager
def jupyterlab(folder: Path, source: str) -> Iterator[tuple[str, Path]]:
    """Address (with its token) and file of the notebook; the server is ended with the block."""
    root = folder / "notebooks"
    root.mkdir()
    cell = {
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "id": "cell",
    }
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (root / "cell.ipynb").write_text(
        json.dumps({"cells": [cell], "metadata": about, "nbformat": 4, "nbformat_minor": 5})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, folders = (
        secrets.token_hex(16),
        {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | folders | {"HF_HUB_OFFLINE": "1", "PATH": path, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
    ]
    command += [
        f"--ServerApp.root_dir={root}",
        "--ServerApp.allow_root=True",
        "--ServerApp.port_retries=0",
        "--LabApp.news_url=None",
    ]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server)
        yield f"http://127.0.0.1:{port}/lab/tree/cell.ipynb?reset&token={token}", root / "cell.ipynb"
    finally:
        server.terminate()
        server.wait(60)


def run_cell(page, address: str) -> None:
    """Opens the notebook and runs its cell as a reader would."""
    page.goto(address)
    # a cell that is run before its kernel is there is passed over without a word
    page.get_by_text(
        "Python 3 (ipykernel) | Idle"
    ).wait_for()  # the notebook's own indicator says idle without a kernel too
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")


def _wait_for(address: str, server: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError("JupyterLab did not start")
