"""The overview of commands: complete, and without loading what the commands need."""

from __future__ import annotations

import subprocess
import sys

from workbench.cli_entry import overview


def test_the_overview_names_every_command_with_its_first_line():
    from workbench.cli import app

    shown = overview()
    listed = [name for name in app if not name.startswith("-")]
    assert len(listed) > 4
    for name in listed:
        command = app[name]
        below = [f"{name} {sub}" for sub in command if not sub.startswith("-")] or [name]
        for full in below:
            assert f"\n  {full} " in shown
    assert "end to end on the embedded model" in shown


def test_the_help_of_every_command_describes_every_argument():
    from workbench.cli import app

    groups = [app, *(app[name] for name in ("sae", "persona", "organism"))]
    commands = [group[name] for group in groups for name in group if not name.startswith("-")]
    arguments = [
        (command.name, argument)
        for command in commands
        if command.default_command
        for argument in command.assemble_argument_collection(parse_docstring=True)
    ]
    assert len(arguments) > 60
    assert [(name, argument.name) for name, argument in arguments if not argument.parameter.help] == []


def test_help_and_import_load_no_heavy_module():
    code = "import sys; sys.argv = ['workbench', '--help']; import workbench; from workbench.cli_entry import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "transformer_lens", "transformers", "cyclopts", "rich", "pandas", "numpy"}
    assert "Usage: workbench COMMAND" in done.stdout
