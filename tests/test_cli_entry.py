"""The overview of commands: complete, and without loading what the commands need."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

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


def test_no_help_offers_the_negative_of_a_flag_or_an_empty_list():
    """The help texts as a terminal shows them."""
    from workbench.cli import app

    groups = {"sae": app["sae"], "persona": app["persona"], "organism": app["organism"]}
    commands = [[name] for name in app if not name.startswith("-")]
    commands += [
        [group, name] for group, members in groups.items() for name in members if not name.startswith("-")
    ]
    shown = io.StringIO()
    for command in commands:
        app.help_print(command, console=Console(file=shown, width=200))
    assert (
        shown.getvalue().count("Usage: workbench") == len(commands) > 20
        and "--over-seeds" in shown.getvalue()
    )
    assert re.findall(r"--(?:no|empty)-[a-z-]+", shown.getvalue()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_the_completion_script(shell):
    from workbench.cli import app

    script = app.generate_completion(shell=shell)
    assert [name for name in app if not name.startswith("-") and name not in script] == []
    assert "--over-seeds" in script or "over-seeds" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_a_command(tmp_path):
    """The script as bash runs it: `workbench fig` and a tab."""
    from workbench.cli import app

    (tmp_path / "script").write_text(app.generate_completion(shell="bash"))
    lines = f"source {tmp_path / 'script'}; COMP_WORDS=(workbench fig); COMP_CWORD=1; _workbench; echo ${{COMPREPLY[@]}}"
    assert subprocess.run(
        ["bash", "-c", lines], capture_output=True, text=True, check=True
    ).stdout.split() == ["figures"]
