"""What a running search shows: one line in a terminal, a plot that is drawn again in a notebook; and what its files say."""

from __future__ import annotations

import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
import torch

from workbench.errors import UserError
from workbench.models import Site
from workbench.objective_words import describe
from workbench.objectives import AnswerLogOddsObjective, ProjectionObjective
from workbench.search import LiveFrontier, ScoredPrompts, SearchProgress
from workbench.search.live_frontier import line, picture

SVG = "{http://www.w3.org/2000/svg}"


def progress(step: int = 3, used: float = 0.25, n: int = 3) -> SearchProgress:
    scored = ScoredPrompts(
        torch.arange(n)[:, None], torch.tensor([-1.0, 0.5, 3.25])[:n], torch.tensor([2.0, 4.0, 5.5])[:n]
    )
    return SearchProgress(step, used, 3.25, 5.5, 1234.4, 100.0, 25.0, 75.0, scored)


def test_the_line_says_best_cross_entropy_speed_and_time_left():
    assert (
        line(progress()) == "step 3 · best +3.25 · cross-entropy 5.50 nats · 1,234 candidates/s · 1:15 left"
    )


@pytest.mark.parametrize("n", [1, 3])
def test_the_picture_has_one_point_a_prompt_in_order(n):
    root = ElementTree.fromstring(f"<div>{picture(progress(n=n))}</div>")
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    assert len(dots) == n
    assert [x for x, _ in dots] == sorted(x for x, _ in dots), "less fluent is further right"
    assert [y for _, y in dots] == sorted((y for _, y in dots), reverse=True), (
        "a higher objective is further up"
    )
    assert all(0 < x < 460 and 0 < y < 240 for x, y in dots)


def test_a_file_gets_one_line_an_update_and_the_last_step_always():
    stream = io.StringIO()
    show = LiveFrontier(every=1000.0, stream=stream)
    for step in (1, 2, 3):
        show(progress(step, step / 3))
    assert [text.split(" · ")[0] for text in stream.getvalue().splitlines()] == ["step 1", "step 3"]


def test_a_terminal_keeps_to_one_line():
    stream = io.StringIO()
    stream.isatty = lambda: True
    show = LiveFrontier(every=0.0, stream=stream)
    show(progress(1, 0.5)), show(progress(2, 1.0))
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().count("\r\x1b[K") == 2


def test_a_notebook_gets_one_plot_that_is_drawn_again(monkeypatch):
    pytest.importorskip("IPython")
    import IPython.display

    class ZMQInteractiveShell: ...

    shown, updates = [], []

    def display(page, display_id):
        shown.append(page)
        return SimpleNamespace(update=updates.append)

    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: ZMQInteractiveShell())
    monkeypatch.setattr(IPython.display, "display", display)
    show = LiveFrontier(every=0.0)
    for step in (1, 2, 3):
        show(progress(step, step / 3))
    assert len(shown) == 1 and len(updates) == 2
    assert "<svg" in shown[0].data and "step 3" in updates[-1].data


def test_the_bar_of_a_study_shows_the_search_beside_it(monkeypatch, capsys):
    from workbench.cli.progress_bars import ProgressBars

    monkeypatch.setenv("COLUMNS", "200")
    with ProgressBars() as bars:
        bars.update("search resga", 0.25)
        bars.note("search resga", progress())
    shown = capsys.readouterr().err
    assert "25 %" in shown and line(progress()) in shown


def test_a_study_that_fails_while_it_loads_prints_no_bar_where_there_is_no_terminal(capsys):
    from workbench.cli.progress_bars import ProgressBars

    with pytest.raises(UserError), ProgressBars() as bars:
        bars.update("load", 0.0)
        raise UserError("no model")
    assert capsys.readouterr().err == ""
    with ProgressBars() as bars:
        bars.update("load", 0.0)
        bars.note("load", progress())
        bars.update("load", 1.0)
        bars.update("directions", 0.0)
    shown = capsys.readouterr().err
    assert "100 %" in shown and "directions" in shown


def test_a_bar_keeps_name_share_and_time_at_80_columns(monkeypatch, capsys):
    from workbench.cli.progress_bars import ProgressBars

    monkeypatch.setenv("COLUMNS", "80")
    stages = (
        "search random_direction 1",
        "search random_direction 10",
        "search answer_objective",
        "directions beside",
    )
    with ProgressBars() as bars:
        for stage in stages:
            bars.update(stage, 0.25)
            bars.note(stage, progress())
    shown = capsys.readouterr().err.splitlines()
    for name in (
        "search random direction 1 ",
        "search random direction 10",
        "search answer objective",
        "other directions",
    ):
        row = next(row for row in shown if row.startswith(name))
        assert "25 %" in row and "0:00:0" in row and len(row) <= 80, row


def test_a_description_is_json_and_tells_vectors_apart():
    one, two = (ProjectionObjective(torch.full((4,), value), Site(1)) for value in (0.5, -0.5))
    assert describe(one) != describe(two)
    goal = -2.0 * one + AnswerLogOddsObjective()
    content = json.loads(json.dumps(describe(goal), allow_nan=False))
    weights = [(weight, term["type"]) for weight, term in content["terms"]]
    assert weights == [(-2.0, "ProjectionObjective"), (1.0, "AnswerLogOddsObjective")]
    assert content["terms"][0][1]["site"]["layer"] == 1
