"""`workbench sae train` from a study: its model, and its train questions as text; nothing without either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import workbench as wb
from tests.support.refused_commands import refused
from workbench.cli.app import main
from workbench.runs import read_json
from workbench.sae import SaeCard, sae_training

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

STUDY = """name: tiny
persona: sycophancy
sign: suppress
model: {name: organism}
data: {train_items: 4}
conditions: [resga]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_the_gates_of_a_card(tmp_path) -> None:
    """Both sides of both gates, and a figure that cannot be computed."""
    card = SaeCard(
        "m", "f", "blocks.1.hook_resid_post", "topk", 4, 2, 9, 0, 0.5, 2.0, 0, 1.0, 1.2, 2.0, 0.8, 9
    )
    assert card.warnings == ()
    low = replace(card, explained_variance=0.026, loss_recovered=0.79)
    assert [line.split(",")[0] for line in low.warnings] == [
        "explained variance 0.03 on held-out text",
        "loss recovered 0.79 on held-out text",
    ]
    assert len(replace(card, explained_variance=float("nan")).warnings) == 1
    assert replace(card, loss_recovered=None).warnings == ()


def test_the_text_is_every_train_question_and_no_other(
    study: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Not only the 4 that the study itself uses, and none of the splits that a study reports on."""
    seen: list[tuple[int, ...]] = []
    split = sae_training.split_texts
    monkeypatch.setattr(
        sae_training, "split_texts", lambda windows, seed: (seen.extend(windows), split(windows, seed))[1]
    )
    given = ["--study", str(study), "--layer", "1", "--d-sae", "32", "--k", "2", "--tokens", "9000"]
    monkeypatch.setattr("sys.argv", ["workbench", "sae", "train", *given, "--out", str(tmp_path / "sae")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    printed = capsys.readouterr()
    assert read_json(tmp_path / "sae" / "card.json")["explained_variance"] < 0.5
    assert (
        "explained variance 0." in printed.out + printed.err and "less than 0.50" in printed.out + printed.err
    )
    model = wb.load_model("organism")
    with pytest.warns(UserWarning, match="less than 0.50"):
        loaded = wb.load_sae(str(tmp_path / "sae"), model=model)
    assert loaded.site == wb.Site(1)

    splits, runner = wb.load_persona("sycophancy").split(0, (0.3, 0.15, 0.15, 0.4)), wb.runner_for(model)
    text = "".join(runner.decode(ids) for ids in seen)
    read = {
        part.name: {runner.decode(runner.encode(item.question)) for item in part.items} for part in splits
    }
    assert all(question in text for question in read["train"])
    assert not any(question in text for question in (read["selection"] | read["test"]) - read["train"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "expected --study STUDY.yaml, or --model and --corpus"),
        (["--model", "organism"], "expected --study STUDY.yaml, or --model and --corpus"),
        (["--study", "none.yaml"], "none.yaml: expected a file, found nothing"),
        (["--model", "organism", "--corpus", "text.txt", "--dtype", "int3"], "int3"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(given, says, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("a text\n" * 20)
    line = refused(["sae", "train", *given, "--layer", "1", "--out", "sae"], capsys, monkeypatch)
    assert says in line and not Path("sae").exists()
