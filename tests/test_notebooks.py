"""The notebooks run from top to bottom, as a reader would run them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_presets import caa_file
from tiny import tiny_checkpoint

HOME = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(p for p in HOME.glob("*.ipynb") if p.stem != "06_paper_study")  # which needs a published file: below, on a tiny checkpoint


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in shown if out.output_type == "error"]
    assert sum("text/html" in out.get("data", {}) for out in shown) >= 5, "results show themselves as tables"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_papers_study_runs_on_a_tiny_checkpoint(tmp_path, monkeypatch):
    """Both protocols from the notebook, on a random model of Llama's kind and short questions."""
    monkeypatch.setenv("PAPER_MODEL", str(tiny_checkpoint("llama", tmp_path / "model", num_hidden_layers=3)))
    monkeypatch.setenv("PAPER_DATA", str(caa_file(tmp_path / "sycophancy.json")))
    monkeypatch.setenv("PAPER_LAYER", "1")
    notebook = nbformat.read(HOME / "06_paper_study.ipynb", as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(HOME)}}).execute()
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in shown if out.output_type == "error"]
    pages = [out["data"]["text/html"] for out in shown if "text/html" in out.get("data", {})]
    assert len(pages) >= 6 and any("first option" in page for page in pages) and any("as published" in page for page in pages)
