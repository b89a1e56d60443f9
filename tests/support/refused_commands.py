"""A command with a user's mistake, which ends with one line."""

import sys

import pytest

from workbench import cli


def refused(arguments: list[str], capsys, monkeypatch) -> str:
    """Runs the command in this process; its exit code is 2; its one line is given back."""
    monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("workbench:")]
    assert end.value.code == 2 and len(lines) == 1
    return lines[0]
