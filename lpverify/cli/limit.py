"""A limit of time that also holds where a step takes longer than it should."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class OutOfTime(BaseException):
    """Raised inside whatever is running when the time is over; ``limited`` catches it."""


def limited(items: Iterator[T], deadline: float) -> Iterator[T]:
    """Pass the items on until ``deadline`` (``time.perf_counter``), then end, in the middle of the next one if need be.

    An item that is running is interrupted between two steps of Python, and only on the main thread of a POSIX system.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield from items
        return
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        while True:
            left = deadline - time.perf_counter()
            if left <= 0:
                return
            signal.setitimer(signal.ITIMER_REAL, min(left, 1e9))
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            yield item
    except OutOfTime:
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise OutOfTime
