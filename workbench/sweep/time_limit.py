"""A limit of wall-clock seconds: an alarm that raises where the program is, and a look at the clock where there can be no alarm."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds between two alarms after the limit: the first may be raised where Python drops exceptions
#: (`__del__`).
AGAIN = 5.0


class TimeLimitReached(BaseException):
    """The limit is over. No Exception, so that no `except Exception` catches it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[Callable[[], None]]:
    """Raises `TimeLimitReached` inside the block after `seconds`; None: no limit. An alarm that was set before goes on afterwards.

    Yields:
        A function that raises it too, once the time is over: in another thread than the main one there is no
        alarm.
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
