"""Input, output and error streams that were closed before the program began (`workbench models >&-`)."""

from __future__ import annotations

import os
import sys


def replace_closed_streams() -> None:
    """Refuses a closed standard output; a closed input or error stream becomes the empty device.

    A closed descriptor is a trap: the next file that is opened gets its number, and is written to by whoever
    prints.
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
