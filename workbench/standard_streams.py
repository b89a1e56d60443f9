"""Standard streams that were closed before the program began (`workbench models >&-`)."""

from __future__ import annotations

import os
import sys


def replace_closed_streams() -> None:
    """Replace a closed input or error stream by the null device; exit if standard output is closed.

    Without this, the next file that is opened would get the closed stream's descriptor, and printed text
    would be written into that file. The exit code is 2.
    """
    for number in (0, 2):
        if (sys.stdin, None, sys.stderr)[number] is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the whole process
    if sys.stdout is None:
        print(
            "workbench: standard output is closed: nothing could be shown; send it to a file or to /dev/null",
            file=sys.stderr,
        )
        raise SystemExit(2)
