"""A report from results in a notebook: the same page, made from the objects themselves."""

from __future__ import annotations

import pytest

import workbench as wb
from tests.support.attribution_toys import TEXT, contexts, targets
from tests.support.html_reader import HtmlReader
from tests.support.toy_models import random_model, toy_persona
from workbench.errors import UserError
from workbench.report import write_report


def test_a_comparison_and_a_ledger_make_a_page(tmp_path):
    model, split = random_model(), toy_persona("text").split(seed=0).test
    table = wb.compare(model, split, [wb.NoPrompt(), wb.Prompt("Be blunt.")])
    ledger = wb.attribute(model, TEXT, targets(), contexts(n=3), ("removal", "gradient_x_input"))
    seen = HtmlReader(write_report([table, ledger], tmp_path / "out.html").read_text(encoding="utf-8"))
    data = seen.data()
    assert (
        len(data["comparison"]["rows"]) == 2
        and data["ledger"]["tokens"][0] == "Be"
        and data["questions"]["odds"] is not None
    )
    assert (
        "Be blunt." in seen.words
        and "is not there" not in seen.words
        and "The parts of the model" in seen.words
    )
    assert [m["target"] for m in data["ledger"]["mediation"]] == ["axis", "3 latents"]


def test_other_things_are_refused(tmp_path):
    for given, words in (([3], "found int"), ([], "at least one")):
        with pytest.raises(UserError, match=words):
            write_report(given, tmp_path / "out.html")
    with pytest.raises(UserError, match="a path"):
        write_report([3])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("questions", [1, 2])
def test_one_question_has_no_interval_and_it_is_said(tmp_path, questions):
    model, split = random_model(), toy_persona("text").split(seed=0).test
    given = [
        wb.Found("Be blunt.", "resga", "by hand"),
        *(wb.Found(text, "random_text", "by hand", name=text) for text in ("Say no.", "So be it.")),
    ]
    table = wb.compare(model, split.take(questions), given)
    words = HtmlReader(write_report(table, tmp_path / "out.html").read_text(encoding="utf-8")).words
    assert (
        "nan" not in words
        and "Not tested" not in table.claims["works"].status
        and table.claims["works"].status == "not shown"
    )
    if len({item.group for item in split.take(questions)}) == 1:
        assert (
            "one question group: no interval" in words
            and "RESGA: Be blunt. may not change toy at all" in table.claims.headline
        )


def test_forty_conditions_make_a_page(tmp_path):
    model, split = random_model(), toy_persona("text").split(seed=0).test
    given = [
        wb.Found(f"Say {i}.", "resga" if i == 0 else "random_text", "by hand", name=f"prompt {i}")
        for i in range(40)
    ]
    path = write_report(wb.compare(model, split.take(6), given), tmp_path / "out.html")
    data = HtmlReader(path.read_text(encoding="utf-8")).data()
    assert (
        len(data["comparison"]["rows"]) == 41
        and len(data["questions"]["odds"]) == 41
        and path.stat().st_size < 1_000_000
    )
