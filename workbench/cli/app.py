"""The command `workbench`, what its commands share, and the exit codes.

Exit codes: 0 done, 2 a mistake that the user can correct, 1 a fault of the program, 130 and 143 after Ctrl-C
and SIGTERM. Nothing heavy is imported before a command needs it: `workbench --help` does not load torch.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from workbench import __version__
from workbench.errors import UserError

app = App(
    name="workbench",
    help="Persona directions, SAE latents, fluent prompt search, honest comparison, attribution.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),  # no --empty-runs, no --no-rerun-failed
    suppress_keyboard_interrupt=False,  # `main` says how to continue
)
app.register_install_completion_command(
    help="Install completion of commands and options for this shell (bash, zsh, fish)."
)

Sign = Literal["suppress", "induce"]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]


class Terminated(BaseException):
    """Raised by SIGTERM in the main thread, so that locks are released and half-written files are removed."""


def main() -> None:
    """Run the command line and exit with its code.

    The codes are 0 done, 2 a mistake that the user can correct, 1 a fault of the program, 130 and 143 after
    Ctrl-C and SIGTERM.
    """
    # Threads that wait for each other sleep instead of spinning: on a busy machine spinning made a step ten
    # times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    for size in ("COLUMNS", "LINES"):
        if (
            os.environ.get(size, "1").strip().lstrip("+-0") == ""
        ):  # nothing at all would be printed for a terminal of width 0
            del os.environ[size]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII or Latin-1 terminal shows the rest as \u escapes
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        app(exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (UserError, CycloptsError) as error:
        _stop(one_line(str(error)), 2)
    except KeyboardInterrupt:
        _ignore_signals()
        _stop("interrupted; finished stages are kept (continue with --resume)", 130)
    except Terminated:
        _ignore_signals()
        _stop("terminated; finished stages are kept (continue with --resume)", 143)
    except BrokenPipeError:  # the reader of our output is gone, as in `workbench models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _ENVIRONMENT and not (error.errno in _PATHS and _is_argument(error.filename)):
            raise
        _stop(one_line(f"cannot write {error.filename or 'the output'}: {error.strerror}"), 2)


def program() -> None:
    """Run `main` as a whole process; after a signal the process ends without unloading torch.

    Unloading would take 1.7 s of processor time.
    """
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in (130, 143):
            _leave_at_once(end.code)
        raise


def _leave_at_once(code: int) -> NoReturn:
    """End the process after the functions that are registered for its end."""
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


#: Errors of the machine that the user can correct: disk full, read-only, no permission, broken device.
_ENVIRONMENT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
#: Errors of a path; they are mistakes of the user if the command line names the path.
_PATHS = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
LONGEST_LINE = 500


def _is_argument(path: object) -> bool:
    """Whether a path is one that the command line names, or a directory above it."""
    if not isinstance(path, str) or not path.strip("/"):
        return False
    place = Path(path).absolute()
    named = [
        Path(arg.partition("=")[2] if arg.startswith("-") else arg).absolute()
        for arg in sys.argv[1:]
        if arg.strip("-./")
    ]
    return any(place == one or place in one.parents for one in named)


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    r"""Return an error text as one printable line.

    Args:
        text: Any text; control characters become visible escapes.
        longest: Most characters of the line; the middle of a longer text is left out.

    Returns:
        The line, at most `longest` characters.

    Example:
        >>> one_line("a\\x1b[31m\\nb")
        'a\\\\x1b[31m b'
    """
    words = " ".join(text.split())
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in words
    )
    if len(shown) <= longest:
        return shown
    half = (longest - 3) // 2
    return f"{shown[:half]}...{shown[-half:]}"


def _stop(line: str, code: int) -> None:
    with contextlib.suppress(OSError):
        print(f"workbench: {line}", file=sys.stderr)
    if code == 2:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    raise SystemExit(code) from None


def _ignore_signals() -> None:
    """Ignore further signals, so that a second Ctrl-C does not interrupt the ending with a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _terminate(number: int, frame: object) -> None:
    raise Terminated
