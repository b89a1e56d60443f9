"""Runs of a size or state that nobody planned for: 1 and 5,000 questions, 1 and 40 conditions, tokens of 300 characters, half a run, two
runs on different test questions, and figures that a run has no data for."""

# ruff: noqa: RUF001  (Hebrew is meant)

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support.browser import Tab, needs_chromium
from tests.support.html_reader import HtmlReader
from tests.support.real_run import edit, read_entry
from workbench.cli import comparison_tables, result_commands, run_commands
from workbench.comparison import compare_runs, questions_of_run
from workbench.errors import UserError
from workbench.report import write_overview, write_report
from workbench.report.load_run import load_run
from workbench.report.paper.export_paper import export_paper

ODD_TOKENS = {
    "300 characters": "a" * 300,
    "right to left": "\u202eמילה\u202c",
    "emoji": "👩\u200d🔬👍🏽",
    "control characters": "\x07\x1b[31m\x00",
}


def with_questions(run: Path, n: int) -> Path:
    """The run as if n test questions had been asked: rows repeated under new names, or cut."""
    answers, texts = pd.read_parquet(run / "evaluation.parquet"), pd.read_parquet(run / "questions.parquet")
    items = list(dict.fromkeys(answers["item"]))
    names = [items[k] if k < len(items) else f"{items[k % len(items)]}/{k}" for k in range(n)]
    own, known = (
        dict(list(answers.groupby("item", sort=False))),
        texts[texts["measure"] == ""].set_index("item"),
    )
    rows = [own[items[k % len(items)]].assign(item=name, group=f"group {k}") for k, name in enumerate(names)]
    told = [
        known.loc[items[k % len(items)]].to_dict() | {"item": name, "group": f"group {k}"}
        for k, name in enumerate(names)
    ]
    pd.concat(rows, ignore_index=True).to_parquet(run / "evaluation.parquet")
    pd.DataFrame(told)[list(texts.columns)].to_parquet(run / "questions.parquet")
    return edit(
        run,
        "comparison.json",
        lambda entry: [condition.update(n=n, groups=n) for condition in entry["conditions"]],
    )


def with_conditions(run: Path, n: int) -> Path:
    """The run with n conditions: cut after the first, or with copies of the last under new names."""

    def change(entry):
        found = entry["conditions"]
        entry["conditions"] = [
            found[k] if k < len(found) else found[-1] | {"name": f"{found[-1]['name']} {k}"} for k in range(n)
        ]

    edit(run, "comparison.json", change)
    names = [condition["name"] for condition in read_entry(run, "comparison.json")["conditions"]]
    answers = pd.read_parquet(run / "evaluation.parquet")
    last = answers[answers["condition"] == answers["condition"].iloc[-1]]
    kept = [
        answers[answers["condition"] == name]
        if (answers["condition"] == name).any()
        else last.assign(condition=name)
        for name in names
    ]
    pd.concat(kept, ignore_index=True).to_parquet(run / "evaluation.parquet")
    return run


@pytest.mark.parametrize("n", [1, 5_000])
def test_any_number_of_questions(make_run, n):
    run = with_questions(make_run(), n)
    contents, page = load_run(run), write_report(run)
    assert len(questions_of_run(run)) == n and page.stat().st_size <= 5_000_000
    data = HtmlReader(page.read_text(encoding="utf-8")).data()
    shown = sum(item["kind"] == "test" for item in data["questions"]["items"])
    assert shown == n if n == 1 else 100 <= shown < n
    assert contents.claims is not None and (n == 1) == ("works" not in contents.claims.named("shown"))
    if n > shown:
        assert export_paper(run, formats="svg").left_out == ()
        drawn = (run / "figures/questions.svg").read_text(encoding="utf-8")
        assert f"of {n:,} shown)" in drawn and drawn.count('aria-roledescription="tick"') <= 5_000
        assert f"{n:,}" in HtmlReader(page.read_text(encoding="utf-8")).words, "the page says of how many"


@pytest.mark.parametrize("n", [1, 40])
def test_any_number_of_conditions(make_run, n, capsys):
    run = with_conditions(make_run(), n)
    page = HtmlReader(write_report(run).read_text(encoding="utf-8"))
    assert len(page.data()["comparison"]["rows"]) == n
    if n == 1:
        assert "the question is still open" in page.words
    comparison_tables.print_side_by_side([run])
    shown = capsys.readouterr().out
    assert "no prompt" in shown and (n == 1 or "39" in shown)


@needs_chromium
@pytest.mark.parametrize("token", ODD_TOKENS.values(), ids=list(ODD_TOKENS))
def test_odd_tokens_stay_in_their_boxes(browser, make_run, token):
    run = make_run()
    frame = pd.read_parquet(run / "attribution.parquet")
    frame.assign(token=token).to_parquet(run / "attribution.parquet")
    edit(run, "attribution.json", lambda entry: entry.update(tokens=[token] * len(entry["tokens"])))
    edit(
        run,
        "comparison.json",
        lambda entry: [c.update(prompt=f"{token} {token}") for c in entry["conditions"] if c["prompt"]],
    )
    tab = Tab(browser.new_page())
    page = tab.open(write_report(run), width=390).page
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.wait_for_selector("#strip button")
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    assert wide <= 0 and tab.trouble == []


def half(run: Path) -> Path:
    """The run as it is after its search."""
    for name in (
        "comparison.json",
        "evaluation.parquet",
        "off_target.parquet",
        "questions.parquet",
        "attribution.json",
        "attribution.parquet",
        "cards.json",
        "cards.parquet",
    ):
        (run / name).unlink()
    return edit(
        run,
        "manifest.json",
        lambda entry: [
            entry["stages"].pop(name)
            for name in ("comparison", "attribution", "report")
            if name in entry["stages"]
        ],
    )


def test_half_a_run_is_told_everywhere(make_run, capsys):
    run = half(make_run())
    page = HtmlReader(write_report(run).read_text(encoding="utf-8"))
    assert (
        "There is no comparison in this run, so the question is still open." in page.words
        and "comparison.json is not there" in page.words
    )
    run_commands.runs(run.parent, as_json=True)
    assert "not finished" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"comparison\.json"):
        result_commands.compare([run])
    with pytest.raises(UserError, match=r"comparison\.json|evaluation\.parquet"):
        questions_of_run(run)
    exported = export_paper(run, formats="svg")
    assert [line for line in exported.left_out if line.startswith("forest: comparison.json is not there")]
    overview = HtmlReader(write_overview([run], run.parent / "overview.html").read_text(encoding="utf-8"))
    assert "comparison.json" in overview.words


def test_runs_on_different_test_questions_are_side_by_side_and_not_paired(make_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = make_run()
    other = Path(shutil.copytree(run, run.parent / "other", ignore=shutil.ignore_patterns(".lock")))
    edit(other, "comparison.json", lambda entry: entry["splits"]["test"].update(hash="another"))
    result_commands.compare([run, other])
    shown = capsys.readouterr().out
    assert "side by side, and no difference is paired" in shown
    with pytest.raises(UserError, match="scored on different questions"):
        compare_runs([run, other])
    result_commands.compare([run, run])
    assert "no difference is paired" not in capsys.readouterr().out


def test_a_figure_without_data_is_one_line(make_run, capsys):
    run = make_run()
    for name in ("attribution.parquet", "attribution.json", "direction.json"):
        (run / name).unlink()
    result_commands.figures(run, format="svg")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert [line.split(":")[1].strip() for line in lines] == ["layers", "ledger", "mediation", "dose"]
    assert (run / "figures/forest.svg").is_file()
