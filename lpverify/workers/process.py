"""The parent's side of a worker's process: start it, end it, and tell how it ended."""

from __future__ import annotations

import abc
import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

# The workers share the processors: more threads would mostly wait for each other. Read when torch is imported.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS"), "1"
)


class Process(abc.ABC):
    """A process that serves the other end of a pipe."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Have it end, and all that it has started; any thread may ask for it, and more than once."""

    @abc.abstractmethod
    def end(self, *, started: bool) -> None:
        """Kill it, and wait for its end; one that is exiting keeps the status it exits with.

        Args:
            started: whether it has begun to serve its pipe, or its end of it has closed.
        """

    @property
    @abc.abstractmethod
    def status(self) -> int:
        """How the ended process ended: its exit code, or minus the signal's number."""

    @property
    def fate(self) -> str:
        """The same in words."""
        code = self.status
        if code == -signal.SIGKILL:
            return f"signal {-code}; is the system short of memory?"
        return f"exit code {code}" if code >= 0 else f"signal {-code}"


class Fresh(Process):
    """An interpreter of its own."""

    def __init__(self, pipe: Connection, memory: int | None) -> None:
        """Start it; the first message that it takes is the setup.

        Args:
            pipe: its end.
            memory: as in ``Pool``.

        Raises:
            OSError: if the system starts no process.
        """
        call = f"lpverify.workers.serving import serve; serve({pipe.fileno()}, {memory})"
        self._process = interpreter(call, pipe.fileno())

    def kill(self) -> None:
        kill(self._process)

    def end(self, *, started: bool) -> None:
        end(self._process)

    @property
    def status(self) -> int:
        return self._process.wait()


def interpreter(call: str, descriptor: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter that runs ``from`` this, with this descriptor, one thread, and an input that stays open."""
    path = [str(folder) for folder in sys.path]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {path!r}; from {call}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
        pass_fds=[descriptor],
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill an interpreter and all that it has started."""
    # Its own session: the group holds this worker and its children only, and keeps its id until we wait.
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait for its end."""
    kill(process)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
