"""What a user may hand over by mistake or out of malice, at the command line: exit code 2, one line that names it, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import workbench as wb
from tests.support.caa_data import caa_file
from tests.support.refused_commands import refused
from tests.support.tiny_checkpoints import tiny_checkpoint

#: The command line is run in this process: its module takes the arguments from sys.argv, as the program does.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return tiny_checkpoint(
        "llama", tmp_path_factory.mktemp("bad") / "llama", num_hidden_layers=2, max_shard_size="40KB"
    )


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Path:
    return tiny_checkpoint("gemma3", tmp_path_factory.mktemp("bad") / "gemma", num_hidden_layers=2)


def truncated(model: Path) -> None:
    shard = sorted(model.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])


def foreign_tokenizer(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzzzz"] = 5000
    (model / "tokenizer.json").write_text(json.dumps(content))


def pickled(model: Path) -> None:
    for file in model.glob("model*.safetensors*"):
        file.unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


def code(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    (model / "evil.py").write_text("open('executed', 'w')")


def link(model: Path) -> None:
    outside = model.parent / "outside.json"
    outside.write_text("{}")
    (model / "generation_config.json").unlink(missing_ok=True)
    (model / "generation_config.json").symlink_to(outside)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (truncated, "broken or cut short"),
        (foreign_tokenizer, "another model's tokenizer"),
        (pickled, "pickles can run code: refused"),
        (code, "auto_map"),
        (link, "leaves the model's directory"),
    ],
)
def test_models_that_are_broken_foreign_or_hostile(
    harm: Callable, says: str, llama, tmp_path, capsys, monkeypatch
):
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    harm(model)
    (tmp_path / "corpus.txt").write_text("a text\n" * 20)
    monkeypatch.chdir(tmp_path)
    arguments = ["sae", "train", "--model", "model", "--corpus", "corpus.txt", "--layer", "0", "--out", "sae"]
    assert says in refused(arguments, capsys, monkeypatch)
    assert not (tmp_path / "sae").exists() and not (tmp_path / "executed").exists()


def _run(tmp_path: Path, data: Path, model: Path, capsys, monkeypatch, **changes) -> str:
    study = wb.preset(
        "sycophancy", str(model), "corrected", size="small", layer=1, data=str(data)
    ).model_copy(update=changes)
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    line = refused(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")], capsys, monkeypatch)
    assert not (tmp_path / "out" / "comparison.json").exists() and not list(
        (tmp_path / "out").glob("direction*")
    )
    return line


def _rows(path: Path, n: int, change: Callable[[list[dict]], None] | None = None) -> Path:
    rows = json.loads(caa_file(path).read_text())[:n]
    if change:
        change(rows)
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("n", "says"),
    [
        (1, "at least 2 items, found 1"),
        (2, "a split by group needs at least 4 groups"),
        (3, "fills all 3 rows"),
    ],
)
def test_too_few_rows_and_a_group_that_is_the_whole_file(n, says, llama, tmp_path, capsys, monkeypatch):
    assert says in _run(
        tmp_path, _rows(tmp_path / "data.json", n if n != 2 else 4), llama, capsys, monkeypatch
    )


def test_a_label_that_is_neither_side_is_named_with_row_and_field(tmp_path, capsys, monkeypatch):
    data = _rows(tmp_path / "data.json", 9, lambda rows: rows[4].update(answer_matching_behavior="(C)"))
    line = refused(["persona", "check", "sycophancy", "--data", str(data)], capsys, monkeypatch)
    assert "row 5, field answer_matching_behavior" in line and "'(C)'" in line


def test_a_csv_in_another_encoding(tmp_path, capsys, monkeypatch):
    data = tmp_path / "data.csv"
    data.write_bytes("question,matching,not_matching\nCafé?,oui,non\n".encode("latin-1"))
    assert "data.csv" in refused(["persona", "check", "mine", "--data", str(data)], capsys, monkeypatch)


def test_a_persona_file_that_points_out_of_its_directory(tmp_path, capsys, monkeypatch):
    caa_file(tmp_path / "data.json")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "data": "../data.json"}))
    assert "leaves the directory" in refused(
        ["persona", "check", str(tmp_path / "inner" / "mine.yaml")], capsys, monkeypatch
    )


def test_a_template_without_a_system_role(gemma, tmp_path, capsys, monkeypatch):
    line = _run(tmp_path, caa_file(tmp_path / "data.json"), gemma, capsys, monkeypatch, slot="system")
    assert "cannot hold the roles system, user" in line


def test_an_sae_of_another_width_or_layer(llama):
    with pytest.raises(
        wb.UserError,
        match=r"reads vectors of width \d+: this model has width 32|does not exist: this model has layers 0-1",
    ):
        wb.load_sae("organism", wb.load_model(llama))


def _pairs(matching: str = "I shall wait {}.", other: str = "I cannot wait {}.") -> list[dict[str, str]]:
    asked = "Will you wait {} days?"
    return [
        {
            "question": asked.format(n),
            "matching": matching.format(n),
            "not_matching": other.format(n),
            "group": str(n),
        }
        for n in range(24)
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": _pairs("I wait.", "I wait.")}, "the matching and the not matching answer are the same"),
        ({"data": _pairs("I wait.", "I wait. Gladly.")}, "the beginning of the other"),
        ({"varied_system_texts": []}, "0 varied system texts: at least 8 are needed"),
        (None, "unknown persona 'optimism'"),
    ],
)
def test_a_persona_that_cannot_be_studied_leaves_nothing(changes, says, llama, tmp_path, capsys, monkeypatch):
    """Equal answers, one the beginning of the other, no varied texts, a persona that does not exist: one line, no run directory."""
    persona = "optimism"
    if changes is not None:
        texts = [f"Be calm about {n}." for n in range(12)]
        whole = {
            "name": "waiting",
            "metric": "text",
            "data": _pairs(),
            "varied_system_texts": texts,
            **changes,
        }
        persona = str(tmp_path / "waiting.yaml")
        Path(persona).write_text(yaml.safe_dump(whole))
    study = {
        "persona": persona,
        "model": {"name": str(llama)},
        "sae": "none",
        "conditions": ["resga"],
        "primary": ["resga"],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    said = refused(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run")], capsys, monkeypatch)
    assert says in said
    assert not (tmp_path / "run").exists() and not Path("runs").exists()
