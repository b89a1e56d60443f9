"""Comparisons in the terminal at several widths: nothing is cut, one name and one unit for one quantity."""

from __future__ import annotations

import pytest

from workbench.cli.comparison_tables import print_comparison, print_runs, print_side_by_side
from workbench.cli.output_tables import print_rows, say
from workbench.runs import write_run_file
from workbench.schema import ComparisonFile, SplitEntry

LONG = "random_direction 12"


def comparison(hash_of_test="h", shift=-2.5):
    difference = {
        "to": "no prompt",
        "value": -0.25,
        "ci": [-0.3, -0.2],
        "log_odds": shift,
        "log_odds_ci": [shift - 0.5, shift + 0.5],
    }
    entries = [
        {"name": "no prompt", "kind": "none", "rate": 0.5, "ci": [0.4, 0.6]},
        {
            "name": "resga",
            "kind": "resga",
            "prompt": "be [bold]blunt",
            "selection_rate": 0.2,
            "rate": 0.25,
            "ci": [0.2, 0.3],
        }
        | {"differences": [difference]},
        {"name": LONG, "kind": "random_direction", "prompt": "p", "rate": None, "differences": []},
    ]
    about = {"persona": "myopic_reward", "model": "m", "sign": "suppress", "metric": "text", "seed": 0}
    return ComparisonFile(
        **about, splits={"test": SplitEntry(n=4, groups=2, hash=hash_of_test)}, conditions=entries
    )


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_comparison_fits_and_cuts_nothing(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison(comparison())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for text in (
        "RESGA",
        "random direction 12",
        "25 % (20 to 30)",
        "-2.50 (-3.00 to -2.00)",
        "be [bold]blunt",
        "myopic reward on m (less wanted)",
    ):
        assert text in printed, text
    assert ("-25 (-30 to -20)" in printed) == (width >= 100) and "…" not in printed


@pytest.mark.parametrize("width", [80, 120, 200])
def test_runs_are_next_to_each_other_with_what_differed(capsys, monkeypatch, tmp_path, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    for name, shift in (("one", -2.5), ("two", -1.5)):
        (tmp_path / name).mkdir()
        write_run_file(tmp_path / name / "comparison.json", comparison(shift=shift))
        (tmp_path / name / "study.yaml").write_text(
            f"seed: {len(name) + (name == 'two')}\nmodel:\n  name: m\nconditions: [resga, {name}]\n"
        )
    from pathlib import Path

    print_side_by_side([Path("one"), Path("two")])
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line.startswith("│ RESGA")]
    assert len(table) == 1 and "-2.50 (-3.00 to -2.00)" in table[0] and "-1.50 (-2.00 to -1.00)" in table[0]
    assert ("25 %" in table[0]) == (width > 80)
    settings = {
        line.split("│")[1].strip(): [part.strip() for part in line.split("│")[2:4]]
        for line in printed.splitlines()
        if line.count("│") == 4
    }
    assert (
        settings["seed"] == ["3", "4"]
        and settings["conditions"] == ["one", "two"]
        and "model.name" not in settings
    )
    assert "one: RESGA lowers myopic reward from 50 % to 25 %" in printed and "not scored" not in printed


def test_each_block_of_runs_lists_its_own_conditions(capsys, monkeypatch):
    """At 80 columns the third run has a table of its own, without the rows of the others."""
    monkeypatch.setenv("COLUMNS", "80")
    whole = comparison()
    last = whole.model_copy(update={"conditions": whole.conditions[:1]})
    print_runs({"run 1": whole, "run 2": whole, "run 3": last})
    blocks = capsys.readouterr().out.split("change in log-odds")[1:]
    rows = [
        [line.split("│")[1].strip() for line in block.splitlines() if line.startswith("│")]
        for block in blocks
    ]
    assert rows == [["no prompt", "RESGA", "random direction 12"], ["no prompt"]]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_table_is_never_wider_than_the_terminal_and_a_first_cell_is_never_broken(
    capsys, monkeypatch, width
):
    """Six columns that together fit 200 columns word by word, and not text by text: rich alone made 236 of them."""
    monkeypatch.setenv("COLUMNS", str(width))
    name, path, long = (
        "/a/directory/of-a-model/with-a-name-of-its-own-and-more/of-it-1d9",
        "hub/" + "y" * 56,
        "MistralForCausalLM, " * 3,
    )
    print_rows(
        ["name", "here", "architecture", "revision", "where", "saes"],
        [[name, "yes", long, "", f"{path} fetched at first use", "a" * 24 + " b"]],
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert (
        sum(name in line for line in lines) == 1
        and any(path in line for line in lines)
        and any("a" * 24 in line for line in lines)
    )
    assert lines[0].startswith("┏") == (width == 200)


def test_sentences_are_wrapped_between_words_in_a_terminal_only_and_paths_never(capsys, monkeypatch):
    sentence, path = "RESGA lowers sycophancy " * 5, "/" + "directory/" * 5
    for terminal, expected in (("1", True), ("0", False)):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        monkeypatch.setenv("COLUMNS", "40")
        say(sentence.strip())
        say(f"report: {path}")
        lines = capsys.readouterr().out.splitlines()
        assert (
            (max(map(len, lines[:-1])) <= 40) == expected
            and " ".join(" ".join(lines[:-1]).split()) == sentence.strip()
            and lines[-1] == f"report: {path}"
        )


def test_runs_on_different_questions_are_side_by_side_and_it_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_run_file(tmp_path / name / "comparison.json", comparison(hash_of_test=name))
    print_side_by_side([tmp_path / "one", tmp_path / "two"])
    assert "not scored on the same questions" in capsys.readouterr().out


def test_a_row_whose_words_no_column_holds_becomes_a_block(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_rows(["name", "where"], [["x" * 30, "y" * 30], ["short", ""]])
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["x" * 30, f"  where  {'y' * 30}", "short"]


def test_a_number_keeps_its_unit_in_a_narrow_terminal(capsys, monkeypatch):
    """At 80 columns the memory of `plan` was printed as "2.4" above "GB"."""
    monkeypatch.setenv("COLUMNS", "46")
    cells = ["search answer_objective", "0.53 s\n1.7 GB", "3.5 min\n2.4 GB"]
    print_rows(["stage", "80 GB GPU (H100)", "CPU (one core)"], [cells])
    printed = capsys.readouterr().out
    assert all(figure in printed for figure in ("0.53 s", "1.7 GB", "3.5 min", "2.4 GB"))
    assert max(map(len, printed.splitlines())) <= 46
