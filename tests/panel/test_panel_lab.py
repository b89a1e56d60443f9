"""The panel in JupyterLab: a server on loopback, a notebook run in a real browser, a prompt typed, the ledger seen to change."""

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
from pathlib import Path

import pytest
from browsing import needs_chromium, open_browser, trouble_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_chromium,
]
CELL = """import workbench as wb
model, persona = wb.load_model("organism"), wb.load_persona("sycophancy")
sae = wb.load_sae("organism")
contexts = wb.make_contexts(model, persona.split(seed=0).search, n=4)
wb.Panel(model, persona, latents=[wb.latent_activation(sae, [3])], contexts=contexts, prompt="be blunt", live=True)"""


@pytest.fixture
def lab(tmp_path) -> Iterator[tuple[str, Path]]:
    """Address (with its token) and folder of a JupyterLab server that this test starts and ends."""
    root = tmp_path / "notebooks"
    root.mkdir()
    cell = {"cell_type": "code", "source": CELL, "metadata": {}, "outputs": [], "execution_count": None, "id": "panel"}
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (root / "panel.ipynb").write_text(json.dumps({"cells": [cell], "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, folders = secrets.token_hex(16), {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | folders | {"HF_HUB_OFFLINE": "1", "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={root}", "--ServerApp.allow_root=True", "--ServerApp.port_retries=0", "--LabApp.news_url=None"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server)
        yield f"http://127.0.0.1:{port}/lab/tree/panel.ipynb?reset&token={token}", root
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(address: str, server: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError("JupyterLab did not start")


def test_typing_in_jupyterlab_changes_the_ledger(lab, tmp_path):
    address, root = lab
    with open_browser(tmp_path / "profile", offline=False) as browser:
        browser.set_default_timeout(300_000)
        page = browser.new_page()
        trouble = trouble_of(page, warnings=False)
        page.goto(address)
        # a cell that is run before its kernel is there is passed over without a word
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # the notebook's own indicator says idle without a kernel too
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        field = page.locator(".wb-panel textarea").first
        field.wait_for()
        tokens = page.locator(".wb-panel .side").first.locator(".strip button span")
        page.wait_for_function("document.querySelector('.wb-panel').shadowRoot.querySelectorAll('.strip button').length === 2", polling=200)
        assert tokens.all_text_contents() == ["be", "blunt"]
        before = page.locator(".wb-panel .matrix td").all_text_contents()
        field.click()
        page.keyboard.press("End")
        page.keyboard.type(" and critical", delay=30)
        page.wait_for_function("document.querySelector('.wb-panel').shadowRoot.querySelectorAll('.strip button').length === 4", polling=200)
        assert tokens.all_text_contents() == ["be", "blunt", "and", "critical"]
        assert page.locator(".wb-panel .matrix td").all_text_contents() != before
        assert page.locator(".jp-CodeCell").count() <= 2, "letters typed into the field did not act as the notebook's shortcuts"
        assert not page.locator("[class^=wb-kept]").is_visible()
        # what the notebook keeps follows, hidden while the panel lives
        page.wait_for_function("document.querySelector('[class^=wb-kept]').textContent.includes('be blunt and critical')", polling=200)
        page.screenshot(path=str(tmp_path / "lab.png"))
        page.keyboard.press("Control+s")
        end = time.monotonic() + 120
        while "be blunt and critical" not in (root / "panel.ipynb").read_text() and time.monotonic() < end:
            page.wait_for_timeout(500)
    outputs = json.loads((root / "panel.ipynb").read_text())["cells"][0]["outputs"]
    kept = ["".join(output["data"].get("text/html", "")) for output in outputs if "data" in output]
    assert any("Prompt: be blunt and critical" in html for html in kept)
    assert [line for line in trouble if "panel" in line.lower() or "widget" in line.lower() or "TypeError" in line] == [], trouble
