"""The notebooks run from top to bottom, as a reader would run them, and are committed with outputs that hold nothing of the machine."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.caa_data import caa_file
from tests.support.paths import ROOT
from tests.support.tiny_checkpoints import tiny_checkpoint

HOME = ROOT / "notebooks"
NOTEBOOKS = sorted(HOME.glob("*.ipynb"))
#: Of the others only the first is short enough for every change; the real model's runs on a tiny checkpoint,
#: and the paper's on one too (below).
RUN = [
    pytest.param(p, marks=[] if p.stem.startswith("01") else pytest.mark.slow, id=p.stem)
    for p in NOTEBOOKS
    if p.stem[:2] != "06"
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", RUN)
def test_runs(path: Path):
    shown = outputs(executed(path))
    assert not [out for out in shown if out.output_type == "error"]
    assert not [out.text for out in shown if out.output_type == "stream"], "no warnings and no prints"
    assert (
        sum("text/html" in out.get("data", {}) or "image/png" in out.get("data", {}) for out in shown) >= 5
    ), "results show themselves"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_opens_with_a_question_and_ends_with_its_answer(path: Path):
    """The answer is written by the last cell from the figures: a number and its interval, or (without outputs) the code that writes them."""
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert cells[-1].cell_type == "code" and '"""**Answer.** ' in cells[-1].source
    if cells[-1].outputs:
        said = cells[-1].outputs[-1]["data"]["text/markdown"]
        intervals = re.findall(
            r"[+-]?\d[\d.]* ?%? ?\[[+-]?[\d.]+ ?%?, [+-]?[\d.]+ ?%?\]|95 % CI -?\d+ to -?\d+", said
        )
        assert said.startswith("**Answer.** ") and intervals


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_has_one_install_cell_and_no_raw_dump(path: Path):
    """Nothing shows itself as the field list of an object without a table next to it."""
    notebook = nbformat.read(path, as_version=4)
    assert sum("%pip install" in cell.source for cell in notebook.cells) == 1
    shown = [out["data"] for out in outputs(notebook) if "data" in out]
    plain = [
        data["text/plain"]
        for data in shown
        if "text/plain" in data and not {"text/html", "image/png", "text/markdown"} & set(data)
    ]
    assert [text for text in plain if re.match(r"\w+\(\w+=", text) or len(text) > 400] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_committed_is_small_and_holds_nothing_of_the_machine(path: Path):
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    said = nbformat.writes(
        nbformat.v4.new_notebook(cells=[c for c in notebook.cells if c.cell_type == "code" and c.outputs])
    )
    assert not re.search(r"/(work|tmp|root|home|Users)/", said)
    assert not [out for out in outputs(notebook) if out.output_type in ("error", "stream")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_names_of_the_workbench_exist(path: Path):
    """Quick to see, also where a notebook runs in the slow tier only: each imported name and each attribute of `wb`."""
    code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    tree = ast.parse("\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in code.splitlines()))
    imports = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("workbench")
    ]
    named = [(n.module, a.name) for n in imports for a in n.names]
    named += [
        ("workbench", n.attr)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "wb"
    ]
    assert named
    assert not [
        f"{module}.{name}" for module, name in named if not hasattr(importlib.import_module(module), name)
    ]


def executed(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    return NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("there", [True, False])
def test_the_real_model_runs_on_a_tiny_checkpoint_and_skips_visibly_without_one(tmp_path, monkeypatch, there):
    """With a model its answers are a table; without one the cell that needs it says so, and the committed studies are shown all the same."""
    model = (
        tiny_checkpoint("qwen2", tmp_path / "model", num_hidden_layers=2) if there else tmp_path / "none.gguf"
    )
    monkeypatch.setenv("REAL_MODEL", str(model))
    shown = outputs(executed(HOME / "06_real_model.ipynb"))
    assert not [out for out in shown if out.output_type in ("error", "stream")]
    pages = [out["data"]["text/html"] for out in shown if "text/html" in out.get("data", {})]
    assert (
        len(pages) == 5
        and ("none.gguf is not here" in pages[2]) == (not there)
        and ("You receive a question" in pages[2]) == there
    )
    assert "answer_objective" in pages[3] and "no direction shown" in pages[4]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_papers_study_runs_on_a_tiny_checkpoint(tmp_path, monkeypatch):
    """Both protocols from the notebook, on a random model of Llama's kind and short questions."""
    monkeypatch.setenv("PAPER_MODEL", str(tiny_checkpoint("llama", tmp_path / "model", num_hidden_layers=3)))
    monkeypatch.setenv("PAPER_DATA", str(caa_file(tmp_path / "sycophancy.json")))
    monkeypatch.setenv("PAPER_LAYER", "1")
    shown = outputs(executed(HOME / "08_paper_study.ipynb"))
    assert not [out for out in shown if out.output_type == "error"]
    pages = [out["data"]["text/html"] for out in shown if "text/html" in out.get("data", {})]
    assert (
        len(pages) >= 6
        and any("first option" in page for page in pages)
        and any("as published" in page for page in pages)
    )
