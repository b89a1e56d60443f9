"""What the command line prints of a finished study."""

from __future__ import annotations

import json

from workbench.cli.comparison_tables import print_comparison
from workbench.cli.persona_commands import persona_list
from workbench.schema import ComparisonFile


def test_the_table_of_a_comparison_has_each_condition_with_its_shift(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = {
        "name": "resga",
        "kind": "resga",
        "prompt": "be [bold]blunt",
        "rate": 0.25,
        "ci": [0.2, 0.3],
        "differences": [{"to": "no prompt", "log_odds": -2.5, "log_odds_ci": [-3.0, None]}],
    }
    bare = {"name": "no prompt", "kind": "none", "rate": 0.5, "ci": [None, None]}
    print_comparison(
        ComparisonFile(
            persona="toy",
            model="m",
            sign="suppress",
            metric="text",
            seed=0,
            splits={},
            conditions=[bare, found],
        )
    )
    printed = capsys.readouterr().out
    for text in ("toy on m (less wanted)", "RESGA", "25 % (20 to 30)", "-2.50", "[bold]blunt"):
        assert text in printed, text


def test_persona_list_shows_every_built_in_persona(capsys):
    persona_list(as_json=True)
    assert {"sycophancy", "feedback_sycophancy"} <= {
        row["name"] for row in json.loads(capsys.readouterr().out)
    }
