"""Limit the wall-clock time of a block of code.

In the main thread an alarm interrupts the program; in other threads, where there is no alarm, the program
must check the clock.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds between repeated alarms after the limit; the first may be lost where Python drops exceptions
#: (`__del__`).
AGAIN = 5.0


class TimeLimitReached(BaseException):
    """Raised when the time limit is reached.

    It is a subclass of BaseException but not of Exception, so that `except Exception` does not catch it.
    """


@contextmanager
def time_limit(seconds: float | None) -> Iterator[Callable[[], None]]:
    """Raise `TimeLimitReached` inside the block after `seconds`.

    An alarm that was set before continues afterwards.

    Args:
        seconds: Wall-clock limit in seconds; None for no limit.

    Yields:
        A function that raises `TimeLimitReached` if the time is over. Code in other threads than the main one
        must call it, because there is no alarm in them.
    """
    began = time.monotonic()

    def check() -> None:
        if seconds is not None and time.monotonic() - began > seconds:
            raise TimeLimitReached

    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield check
        return
    handler = signal.signal(signal.SIGALRM, _over)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield check
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), every)


def _over(number: int, frame: FrameType | None) -> None:
    raise TimeLimitReached
