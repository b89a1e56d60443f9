"""The command line's last line of defence: exit codes, one printable error line, closed and full outputs, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cli.app import LONGEST_LINE, one_line
from workbench.errors import UserError
from workbench.runs import parse_yaml

#: Runs a body inside a command of the real application, through `main`.
BODY = """
import sys
from workbench.cli.app import app, main
@app.command
def probe():
    "A command of this test."
    {body}
sys.argv = ["workbench", "probe"]
main()
"""


def start(body: str, **options) -> subprocess.Popen:
    """The program, with Ctrl-C as in a terminal: a shell's background job, as this test may be in, ignores it."""
    command, out = [sys.executable, "-c", BODY.format(body=body)], options.pop("stdout", subprocess.PIPE)
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, preexec_fn=heard, **options)


@given(st.text(max_size=2000))
def test_an_error_is_one_printable_line_of_bounded_length(text):
    line = one_line(text)
    assert len(line) <= LONGEST_LINE and (line == "" or line.isprintable())


@pytest.mark.parametrize("locale", ["ascii", "latin-1", "utf-8"])
def test_every_terminal_shows_a_hostile_error_in_one_line(locale):
    body = "from workbench.errors import UserError; raise UserError('caf\\u00e9 \\x1b[31m \\ud83d \\n next')"
    done = start(body, env={**os.environ, "PYTHONIOENCODING": locale})
    _, error = done.communicate(timeout=60)
    assert (
        done.returncode == 2
        and error.count(b"\n") == 1
        and b"\x1b" not in error
        and b"Traceback" not in error
    )


def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = start("print('x' * 100000)", stdout=full)
        _, error = done.communicate(timeout=60)
    assert done.returncode == 2 and error.decode().count("\n") == 1 and "No space left" in error.decode()


def test_a_reader_that_left_ends_the_program_quietly():
    done = start("import time\n    while True: print('x' * 10000)")
    done.stdout.close()
    _, error = done.communicate(timeout=60)
    assert done.returncode == 128 + signal.SIGPIPE and error == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_within_five_seconds_with_one_line_and_run_cleanup(number, code):
    body = "import time\n    try:\n        print('ready', flush=True); time.sleep(60)\n    finally: print('cleaned', flush=True)"
    done = start(body)
    assert done.stdout.readline() == b"ready\n"
    began = time.monotonic()
    done.send_signal(number)
    out, error = done.communicate(timeout=30)
    assert done.returncode == code and time.monotonic() - began < 5
    assert out == b"cleaned\n" and re.fullmatch(r"workbench: .*--resume\)\n", error.decode())


@pytest.mark.parametrize(
    "value",
    ["!!timestamp abc", "!!bool abc", "!!int 3", "!!python/object:os.system x", "!!set {a}", "!own x"],
)
def test_yaml_tags_are_refused_with_their_line(value):
    with pytest.raises(UserError, match=r"study, line 2: expected YAML: the tag .* is not allowed"):
        parse_yaml(f"a: 1\nb: {value}", "study")


@pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000])
def test_yaml_values_that_cannot_be_made_are_one_line(value):
    with pytest.raises(UserError, match="expected YAML of plain values"):
        parse_yaml(f"b: {value}", "study")


@pytest.mark.parametrize("name", ["/abs", "../../x", "a/b", "..", ".hidden", "a\\b", "x\ny", "a\n", ""])
def test_a_sweeps_name_cannot_leave_its_directory(name):
    from workbench.sweep import Sweep

    with pytest.raises(UserError, match="field name"):
        Sweep.from_yaml(f"name: {json.dumps(name)}\ngrid: {{seed: [0]}}")


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_no_generator_takes_is_refused_before_anything_runs(tmp_path, seed):
    study = tmp_path / "study.yaml"
    study.write_text(f"seed: {seed}\n")
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "run", str(study), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "field seed" in done.stderr and not (tmp_path / "run").exists()


def test_square_brackets_in_a_path_are_printed_as_they_are(capsys):
    from workbench.cli.output_tables import say

    say("report: /tmp/[bold]run[/bold]/[a]/report.html")
    assert capsys.readouterr().out == "report: /tmp/[bold]run[/bold]/[a]/report.html\n"


def test_doctor_ends_with_2_where_a_check_says_no(monkeypatch, capsys, tmp_path):
    from workbench.cli.model_commands import doctor

    with pytest.raises(SystemExit) as ended:
        doctor(str(tmp_path / "nothing"))
    assert ended.value.code == 2 and "NO" in capsys.readouterr().out
    doctor("organism")
    assert " NO " not in capsys.readouterr().out
