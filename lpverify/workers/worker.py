"""The parent's side of a worker: its pipe, its task, and when that must be done."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

from lpverify.workers.process import Process

# A start imports torch and cvxpy, perhaps from a slow disk, and runs the setup.
START_SECONDS = 300.0


class Worker:
    """One worker.

    Attributes:
        pipe: where it answers.
        ready: whether its setup is done.
        is_second: whether its task was given to one before that never came to be ready.
        position: that of its task, None while it is idle.
        deadline: when it must have answered (``time.monotonic``).
    """

    def __init__(self, start: Callable[[Connection], Process]) -> None:
        """Start its process, which is given its end of the pipe."""
        self.pipe, theirs = Pipe()
        self.ready, self.is_second = False, False
        self.position: int | None = None
        self.deadline = float("inf")
        self._task, self._limit = b"", float("inf")
        with theirs:
            self._process = start(theirs)

    def send(self, data: bytes) -> None:
        """Send it something; to one that is gone nothing can be sent, as its end of the pipe will say."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(data)

    def take(self, position: int, task: bytes, limit: float | None) -> None:
        """Give it a task, which begins when it is ready."""
        self.position, self._task = position, task
        self._limit = float("inf") if limit is None else limit
        if self.ready:
            self.begin()
        else:
            self.deadline = time.monotonic() + START_SECONDS

    def begin(self) -> None:
        """It is ready: its task's time begins."""
        self.ready = True
        self.deadline = time.monotonic() + self._limit
        self.send(self._task)

    def hand_on(self, other: Worker) -> None:
        """Give its task to another, which starts."""
        other.take(self.done(), self._task, self._limit)

    def done(self) -> int:
        """It has no task any more; the position of the one that it had."""
        position, self.position, self.deadline = self.position, None, float("inf")
        assert position is not None
        return position

    def hear(self) -> object:
        """Its next message; None if it is gone."""
        try:
            return pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError, pickle.UnpicklingError):
            return None

    def overrun(self, what: str) -> str:
        """Why it is ended at its deadline, and what it runs."""
        if self.ready:
            return f"{what} exceeded its limit of {self._limit:.3g} s and was ended"
        return f"it was not ready after {START_SECONDS:g} s"

    def kill(self) -> None:
        """Have its process end, from any thread; its pipe will say so."""
        self._process.kill()

    def end(self, *, gone: bool = False) -> None:
        """Kill its process; ``gone``: it has closed its pipe itself, and shall keep the status that it exits with."""
        if not self.pipe.closed:
            self._process.end(started=self.ready or gone)
            self.pipe.close()

    @property
    def fate(self) -> str:
        """How the ended process ended."""
        return self._process.fate
