"""Limits for a chat template, a program that came with a model: time, output, memory and loop counts.

1. The template runs in its own thread. After SECONDS an exception is raised in that thread, which ends loops
   of any kind.
2. `range` gives at most STEPS numbers in one rendering.
3. A text of more than CHARACTERS characters is refused.
4. Rendering stops when the process has grown by more than GROWTH bytes (checked every LOOK seconds, on
   systems with /proc). A single operation that takes more memory than that is not stopped.
"""

from __future__ import annotations

import ctypes
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

SECONDS = 1.5
STEPS = 200_000
CHARACTERS = 4_000_000
GROWTH = 500_000_000
LOOK = 0.01
T = TypeVar("T")


class TemplateLimit(Exception):
    """A chat template exceeded a limit; the message completes "the chat template of this model ..."."""


#: Raised in the rendering thread when its time is over; Python prints nothing for a thread that ends with it.
_STOPPED = SystemExit


def limited_range() -> Callable[..., range]:
    """Return a replacement of `range` for chat templates, which stops endless loops.

    In one rendering it gives at most STEPS (200,000) numbers in total, else it raises TemplateLimit.
    """
    left = STEPS

    def counted(*arguments: int) -> range:
        nonlocal left
        numbers = range(*arguments)
        left -= len(numbers) + 1 if abs(numbers.stop - numbers.start) < 1 << 62 else STEPS + 1
        if left < 0:
            raise TemplateLimit(f"counts further than {STEPS:,}")
        return numbers

    return counted


def refuse_chance(*_: Any, **__: Any) -> str:
    """Raise TemplateLimit; chat templates get this in place of functions that draw at random."""
    raise TemplateLimit("draws at random")


def _resident() -> int:
    """Bytes of memory that the process holds; 0 if the system does not report them."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def rendered_within(render: Callable[[], T], seconds: float = SECONDS) -> T:
    """Call `render`, which renders a chat template, within limits of time, memory and length.

    Args:
        render: The function to call, without arguments.
        seconds: Time limit in seconds.

    Returns:
        The function's result.

    Raises:
        TemplateLimit: The call took longer than `seconds`, used more than 500 MB, or returned a text of more
            than 4 million characters.
        Exception: Any error that `render` raises.
    """
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["value"] = render()
        except _STOPPED:
            pass
        except BaseException as error:  # handed on to the caller
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    held, ends = _resident(), time.monotonic() + seconds
    thread.start()
    large = False
    while thread.is_alive() and not large and time.monotonic() < ends:
        thread.join(LOOK)
        large = _resident() - held > GROWTH
    for _ in range(10):  # a long operation in C cannot be stopped; the thread then continues as a daemon
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_STOPPED)
        )
        thread.join(0.1)
    if not outcome:
        raise TemplateLimit(
            f"needs more than {GROWTH // 1_000_000} MB" if large else "did not end within its time"
        )
    if "error" in outcome:
        raise outcome["error"]
    value: object = outcome["value"]
    if isinstance(value, str) and len(value) > CHARACTERS:
        raise TemplateLimit(f"writes more than {CHARACTERS:,} characters")
    return cast("T", value)
