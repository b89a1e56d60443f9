"""Every Python and YAML block of README and docs/ is run as it is printed; a page's Python blocks share their names, in order."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import groupby
from pathlib import Path

import pytest
import yaml

import workbench as wb
from tests.support.doc_blocks import PAGES, DocBlock, blocks
from tests.support.doc_names import doc_names
from tests.support.paths import ROOT
from tests.support.registries import restored_registries
from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench.personas import check_persona
from workbench.study import cost_estimate
from workbench.sweep.resolve_studies import plan as resolve

PYTHON = [
    (page, list(found)) for page, found in groupby(blocks("python", "py"), key=lambda block: block.page)
]
YAML = blocks("yaml", "yml")


def test_blocks_are_found_and_none_goes_by_another_name():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert text.count("```python") == sum(len(found) for _, found in PYTHON) and text.count("```yaml") == len(
        YAML
    )
    assert not blocks("pycon", "py", "yml", "Python", "YAML")
    assert all(isinstance(block.missing, tuple) for _, found in PYTHON for block in found)


@pytest.fixture
def chat_server(monkeypatch):
    """An endpoint at the address that the pages name, 127.0.0.1:8000: it answers every request with the number 70."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"content": "70"}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server, connect = HTTPServer(("127.0.0.1", 0), Handler), socket.create_connection
    named = {("127.0.0.1", 8000): server.server_address}
    monkeypatch.setattr(
        socket,
        "create_connection",
        lambda address, *rest, **more: connect(named.get(tuple(address), address), *rest, **more),
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def at_hand(organism):
    """What pages take as given."""
    return lambda: doc_names(organism)


def run(block: DocBlock, names: dict) -> None:
    """Compiles the block with its own place in the page, so that a traceback names it."""
    source = "\n" * block.line + block.code
    exec(compile(source, str(block.page.relative_to(ROOT)), "exec"), names)


#: Pages whose blocks take a minute or more of processor time: the whole pipeline, and a search with a model
#: of 135M parameters.
LONG = ("tutorial", "sentences")
#: The README's is run in test_quickstart.py.
PAGES_OF_PYTHON = [
    pytest.param(
        page, found, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if page.stem in LONG else []
    )
    for page, found in PYTHON
    if page.name != "README.md"
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("page", "found"), PAGES_OF_PYTHON)
def test_python_runs(page: Path, found: list[DocBlock], at_hand, chat_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint("llama", tmp_path / "PATH")
    names = {"wb": wb} if "load_model(" in found[0].code else at_hand()
    with restored_registries():
        ran = [run(block, names) for block in found if not block.missing]
    if not ran:
        pytest.skip(f"needs {', '.join(sorted({need for block in found for need in block.missing}))}")


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.name)
def test_yaml_is_accepted(block: DocBlock, tmp_path, monkeypatch):
    """A persona is checked, a study planned, a sweep expanded and each of its studies looked up."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(block.code)
    path = tmp_path / "block.yaml"
    path.write_text(block.code)
    if "description" in content:
        assert len(check_persona(wb.load_persona(str(path)), 0.1).table)
    elif "grid" in content:
        (tmp_path / "my_study.yaml").write_text(wb.Study().to_yaml())
        assert len(resolve(wb.Sweep.load(path).expand())) > 1
    else:
        study = wb.Study.load(path)
        assert len(cost_estimate.plan(study).table)
