"""The template of workers: a process that imports what they need, and from which each is forked in a moment.

It runs neither the setup nor a task, and starts no thread: what makes a fork dangerous, locks that another thread holds
and solvers with threads of their own, is not there. If an import leaves a thread behind, it refuses, and workers are
fresh interpreters. It needs Linux, whose processes can be waited for by a descriptor, and which kills a worker when
its parent closes a pipe.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from lpverify.workers.process import Process, end, interpreter, kill
from lpverify.workers.serving import answer_all, confine, die_with_parent, run, take_life

POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
# What it says, in place of a worker's first word, if it must not fork.
REFUSED = b"-"


class Template:
    """The parent's side: the process starts at once, and forks when its imports are done."""

    def __init__(self, setup: bytes, modules: Sequence[str], memory: int | None) -> None:
        """Start it.

        Args:
            setup: as in ``Pool``, pickled; whatever unpickling it imports is there when a worker is forked.
            modules: other modules to import, where they can be.
            memory: as in ``Pool``.

        Raises:
            OSError: if the system starts no process.
        """
        self._requests, theirs = socket.socketpair()
        with theirs:
            call = f"lpverify.workers.template import serve; serve({theirs.fileno()}, {list(modules)!r}, {memory})"
            self._process = interpreter(call, theirs.fileno())
        with suppress(BrokenPipeError, ConnectionResetError), Connection(os.dup(self._requests.fileno())) as pipe:
            pipe.send_bytes(setup)

    @property
    def is_there(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int:
        """How it ended: its exit code, or minus its signal; of one that runs still, after its end."""
        return self._process.wait()

    def fork(self, pipe: Connection) -> Forked:
        """A worker that serves this end of a pipe, perhaps when the imports are done.

        Raises:
            OSError: if the system has no more pipes.
        """
        with ExitStack() as theirs, ExitStack() as ours:
            life, alive = _pipe(theirs, ours)
            told, ended = _pipe(ours, theirs)
            # If it is gone, the worker's end of the pipe closes, as it does at any end of the worker.
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._requests, [b"+"], [pipe.fileno(), life.fileno(), ended.fileno()])
            ours.pop_all()
        return Forked(self, alive, told)

    def kill(self) -> None:
        """Have it end; what was forked from it lives on. Any thread may ask for it."""
        kill(self._process)

    def end(self) -> None:
        """Kill it, and wait for its end."""
        end(self._process)
        self._requests.close()


def _pipe(read: ExitStack, write: ExitStack) -> tuple[FileIO, FileIO]:
    """The two ends of a new pipe, each closed with its stack."""
    ends = os.pipe()
    return read.enter_context(FileIO(ends[0], "rb")), write.enter_context(FileIO(ends[1], "wb"))


class Forked(Process):
    """A worker forked from a template."""

    def __init__(self, template: Template, life: FileIO, ended: FileIO) -> None:
        """
        Args:
            template: where it comes from.
            life: the end of a pipe; closing it kills the worker's group.
            ended: the end of a pipe by which the template tells how the worker ended.
        """
        self._template, self._life, self._ended = template, life, ended
        self._status: int | None = None

    def kill(self) -> None:
        self._life.close()

    def end(self, *, started: bool) -> None:
        # Whatever interrupts this, and from whichever thread: no number is closed twice, for these objects know it.
        self.kill()
        # One that has not started yet will find the pipe closed: its template may be long in coming to it.
        if started and self._status is None and not self._ended.closed:
            told = self._ended.read(16)
            self._status = int(told) if told else self._template.status
        self._ended.close()

    @property
    def status(self) -> int:
        assert self._status is not None
        return self._status


def serve(descriptor: int, modules: Sequence[str], memory: int | None) -> NoReturn:
    """The main function of a template; the arguments are those of ``Template``, and its end of the socket."""

    def work() -> None:
        os.set_inheritable(descriptor, False)
        die_with_parent(take_life())
        confine(memory)
        with socket.socket(fileno=descriptor) as requests:
            with Connection(os.dup(descriptor)) as pipe:
                setup = pipe.recv_bytes()
            _import(setup, modules)
            _fork_all(requests, setup)

    run(work)


def _import(setup: bytes, modules: Sequence[str]) -> None:
    """Import what can be imported; what cannot is the worker's to tell."""
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    with suppress(Exception):
        pickle.loads(setup)
    # Objects that are never collected are never written to, and stay shared with the workers.
    gc.collect()
    gc.freeze()


def _fork_all(requests: socket.socket, setup: bytes) -> None:
    """Fork a worker for every request, and tell how each ended, until the parent closes the socket."""
    workers: dict[int, tuple[int, int]] = {}
    while True:
        for ready in wait([requests, *workers]):
            if isinstance(ready, int):
                _report(ready, *workers.pop(ready))
                continue
            _, given, _, _ = socket.recv_fds(requests, 1, 3)
            if not given:
                return
            for descriptor in given:
                # Not for the programs that a solver starts: the pipe's other end shall see when the worker is gone.
                os.set_inheritable(descriptor, False)
            pipe, life, ended = given
            if len(os.listdir("/proc/self/task")) > 1:
                Connection(pipe).send_bytes(pickle.dumps(REFUSED))
                os.close(life)
                os.close(ended)
                continue
            if (pid := os.fork()) == 0:
                requests.close()
                for other, (_, tells) in workers.items():
                    os.close(other)
                    os.close(tells)
                os.close(ended)
                run(lambda: _work(Connection(pipe), life, setup))  # noqa: B023
            os.close(pipe)
            os.close(life)
            workers[os.pidfd_open(pid)] = (pid, ended)


def _work(pipe: Connection, life: int, setup: bytes) -> None:
    """A worker, in a session and so a group of its own."""
    os.setsid()
    die_with_parent(life)
    answer_all(pipe, setup)


def _report(descriptor: int, pid: int, ended: int) -> None:
    """End what a worker has left behind, and tell how it ended."""
    # Until it is waited for, its group's number is its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(ended, str(status).encode())
    os.close(ended)
    os.close(descriptor)
