"""Strange paths and terminals, through the real program: one line or the whole output, and the right exit code."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.tiny_study import TINY
from workbench.cli.app import main
from workbench.errors import UserError
from workbench.runs import write_text


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "workbench.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=300, env={**os.environ, **environment})


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2), (1,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("module", ["workbench", "workbench.cli"])
def test_closed_streams(closed: tuple[int, ...], module: str, tmp_path: Path) -> None:
    """A closed output was silence with exit 0; a closed descriptor must not become the number of a file that is written."""

    def close() -> None:
        for number in closed:
            os.close(number)

    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = [sys.executable, "-m", module, "init", "--help"]
        code = subprocess.run(command, stdout=out, stderr=err, preexec_fn=close, timeout=300).returncode
    said, complaint = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    if 1 not in closed:
        assert code == 0 and "init" in said and complaint == ""
    else:
        assert (
            code == 2
            and said == ""
            and (2 in closed or complaint.startswith("workbench: standard output is closed"))
        )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    file.write_text(TINY.to_yaml())
    return file


@pytest.fixture(scope="module")
def finished(study: Path) -> tuple[Path, subprocess.CompletedProcess[bytes]]:
    """A run whose path has markup, an escape, other scripts and white space, on a terminal without width, colours or letters."""
    place = study.parent / "[bold]r \x1b[31m 名前 [link]"
    return place, run(
        "run",
        study,
        "--out",
        place,
        COLUMNS="0",
        TERM="dumb",
        PYTHONIOENCODING="ascii",
        XDG_CACHE_HOME="/dev/null/x",
    )


def test_a_run_ends_with_its_whole_output_whatever_path_and_terminal(
    finished: tuple[Path, subprocess.CompletedProcess[bytes]],
) -> None:
    place, done = finished
    assert done.returncode == 0 and (place / "report.html").exists()
    lines = done.stdout.decode("ascii").splitlines()
    assert (
        b"\x1b" not in done.stdout
        and lines[0].startswith("RESGA ")
        and any(line.startswith("  RESGA: ") for line in lines)
    )
    assert lines[-1].startswith("report: ") and "[bold]r " in lines[-1] and "[link]/report.html" in lines[-1]


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "0"},
        {"COLUMNS": "5"},
        {"COLUMNS": "nothing"},
        {"TERM": "dumb"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_every_terminal_gets_the_words_of_a_table(
    finished: tuple[Path, subprocess.CompletedProcess[bytes]], environment: dict[str, str]
) -> None:
    done = run("compare", finished[0], **environment)
    assert (
        done.returncode == 0
        and b"RESGA" in done.stdout
        and b"no prompt" in done.stdout
        and b"\x1b" not in done.stdout
    )


#: What each command that takes a place to write to is given; `{out}` is that place.
COMMANDS = {
    "run": "run {study} --out {out}",
    "organism train": "organism train --out {out}",
    "organism corpus": "organism corpus --count 1 --out {out}",
    "report": "report {run} --out {out}",
    "overview": "report {run} {run} --out {out}",
    "figures": "figures {run} --format svg --out {out}",
    "init": "init {out}",
    "sweep": "sweep {sweep} --out {out}",
}


@pytest.mark.filterwarnings("ignore:Cyclopts application")
@pytest.mark.parametrize("out", ["/dev/null/x", "/proc/x/y"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_to_is_one_line(
    finished: tuple[Path, subprocess.CompletedProcess[bytes]],
    study: Path,
    command: str,
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"name: two\nstudy: {study}\ngrid: {{seed: [0, 1]}}\n")
    given = {"study": study, "run": finished[0], "sweep": sweep, "out": out}
    monkeypatch.setattr(
        sys, "argv", ["workbench", *(word.format(**given) for word in COMMANDS[command].split())]
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and said.startswith("workbench: ")
    assert any(str(place) in said for place in (Path(out), Path(out).parent)), said


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    """As root, renaming a new file over /dev/null took it away from the machine: `workbench report RUN --out /dev/null` did that."""
    read, write = os.pipe()
    write_text(f"/proc/self/fd/{write}", "page")
    os.close(write)
    assert os.read(read, 10) == b"page" and os.close(read) is None
    before = os.stat("/dev/null")
    write_text("/dev/null", "page")
    assert os.stat("/dev/null").st_rdev == before.st_rdev and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "fifo")
    heard = subprocess.Popen(["cat", tmp_path / "fifo"], stdout=subprocess.PIPE)
    write_text(tmp_path / "fifo", "page")
    assert heard.communicate(timeout=30)[0] == b"page" and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_a_link_to_a_device_or_a_pipe_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A run of somebody else whose report is a link to a device: as root, following it would write to the device."""
    os.mkfifo(tmp_path / "fifo")
    for name, target in (("one", tmp_path / "fifo"), ("two", Path("/dev/null"))):
        (tmp_path / name).symlink_to(target)
        write_text(tmp_path / name, "page")
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "page"
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_files_in_shared_memory_are_whole_or_absent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        file = Path(place, "manifest.json")
        write_text(file, "old")
        monkeypatch.setattr(
            os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(UserError, match="No space left"):
            write_text(file, "new")
        assert file.read_text() == "old" and [entry.name for entry in Path(place).iterdir()] == [
            "manifest.json"
        ]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_impatient_user_gets_one_line_too(sent: signal.Signals) -> None:
    """A second Ctrl-C broke off the end of the program with a traceback."""
    code = """
import atexit, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import workbench.cli
door = sys.modules["workbench.cli.app"]
def again():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    time.sleep(0.05)
def first(**_):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(10)
atexit.register(again)
door.app = first
door.program()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(sent))], capture_output=True, text=True, timeout=120
    )
    assert (
        done.returncode == 128 + sent
        and done.stderr.count("\n") == 1
        and done.stderr.startswith("workbench: ")
    )


def test_ctrl_c_while_the_command_line_is_imported_is_one_line() -> None:
    code = """
import builtins, sys
real = builtins.__import__
def interrupted(name, *rest, **more):
    if name == "workbench.cli":
        raise KeyboardInterrupt
    return real(name, *rest, **more)
sys.argv = ["workbench", "models"]
from workbench.cli_entry import main
builtins.__import__ = interrupted
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "workbench: interrupted before it began\n")
