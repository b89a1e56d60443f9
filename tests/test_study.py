"""The whole way on the organism at a toy size: files, resume, determinism; and the command line's exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.budget import Budget
from workbench.errors import UserError
from workbench.runs import RunDirectory
from workbench.study import Study, run
from workbench.study.settings import Attribution, Data, Directions, Search

TINY = Study(
    data=Data(train_items=24, search_items=6, selection_items=8, test_items=24),
    directions=Directions(layers=(1, 2), methods=("own_choice", "mean_difference"), rows=48, texts=6, contexts=4),
    search=Search(
        options={"length": 4, "population": 3, "children": 6, "top_k": 32}, budget=Budget(steps=3), contexts=3, neutral=6
    ),
    conditions=("constant_answer", "manual", "random_tokens", "resga", "saega", "steering"),
    random_directions=0, random_prompts=1, latents=3, attribution=Attribution(contexts=3),
)  # fmt: skip
FILES = [
    "study.yaml", "manifest.json", "direction.safetensors", "direction.json", "latents.json", "search/frontier.json", "search/history.parquet",
    "evaluation.parquet", "comparison.json", "attribution.parquet", "attribution.json", "cards.json", "cards.parquet", "report.html", "log.jsonl",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(organism, tmp_path_factory) -> RunDirectory:
    return run(TINY, tmp_path_factory.mktemp("study") / "with a space", model=organism)


def test_a_run_leaves_the_files_of_the_contract(finished):
    for name in FILES:
        assert (finished.path / name).stat().st_size > 0, name
    entry = json.loads((finished.path / "comparison.json").read_text())
    assert entry["schema"] == 1 and entry["persona"] == "sycophancy" and entry["sign"] == "suppress"
    assert set(entry["splits"]) == {"train", "search", "selection", "test"}
    names = [c["name"] for c in entry["conditions"]]
    assert names[0] == "no prompt" and {"resga", "saega", "steering", "manual"} <= set(names)
    for condition in entry["conditions"]:
        assert {"kind", "method", "rate", "ci", "log_odds", "log_odds_ci", "n", "groups", "differences", "cost", "collateral"} <= set(condition)
        assert condition["name"] == "no prompt" or any(d["to"] == "no prompt" for d in condition["differences"])
    assert finished.manifest().test_reads == 1


def test_the_explanation_has_its_circuit_side_effects_and_cards(finished):
    entry = json.loads((finished.path / "attribution.json").read_text())
    assert 0 < len(entry["circuit"]["nodes"]) <= 12 and entry["circuit"]["verdict"] and {d["kind"] for d in entry["dose"]} == {"prompt", "steering"}
    aimed = {row["latent"] for row in json.loads((finished.path / "latents.json").read_text())["latents"]}
    assert {m["latent"] for m in entry["side_effects"]["inside"]} == aimed and entry["side_effects"]["manual"]
    cards = json.loads((finished.path / "cards.json").read_text())["cards"]
    assert aimed <= {card["latent"] for card in cards} and len(cards) == 12


def test_resume_does_nothing_twice(finished, organism):
    before = {name: (finished.path / name).read_bytes() for name in FILES[2:13]}
    run(TINY, finished.path, resume=True, model=organism)
    assert {name: (finished.path / name).read_bytes() for name in before} == before
    assert finished.manifest().test_reads == 1


def test_the_same_seed_gives_the_same_prompts_and_figures(finished, organism, tmp_path):
    again = run(TINY, tmp_path / "again", model=organism)
    entries = [json.loads((d.path / "comparison.json").read_text()) for d in (finished, again)]
    for one, two in zip(*(e["conditions"] for e in entries), strict=True):
        assert (one["name"], one["prompt"], one["rate"], one["log_odds"]) == (two["name"], two["prompt"], two["rate"], two["log_odds"])


def test_another_study_in_the_directory_is_refused(finished, organism):
    with pytest.raises(UserError, match="describes another study"):
        run(TINY.model_copy(update={"seed": 1}), finished.path, resume=True, model=organism)
    with pytest.raises(UserError, match="not empty"):
        run(TINY, finished.path, model=organism)


def test_yaml_and_python_are_one_type():
    assert Study.from_yaml(TINY.to_yaml()) == TINY
    with pytest.raises(UserError, match=r"mine, field search.budgt"):
        Study.from_yaml("search: {budgt: 3}", "mine")
    with pytest.raises(UserError, match="unknown condition 'magic'"):
        Study.from_yaml("conditions: [magic]")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "missing.yaml", "--out", "x"], "missing.yaml"),
        (["demo", "--persona", "greed"], "greed"),
        (["nonsense"], "nonsense"),
        (["report", "no_such_run"], "no_such_run"),
    ],
)
def test_mistakes_end_with_code_2_and_one_line(arguments, says, tmp_path):
    done = subprocess.run([sys.executable, "-m", "workbench.cli", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("workbench:")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_import_do_not_load_torch():
    code = "import sys, workbench, workbench.cli; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
