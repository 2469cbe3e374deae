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
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from lpverify.workers.process import Process, interpreter, kill
from lpverify.workers.serving import answer_all, confine, die_with_parent, run, take_life

POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
# What it says, in place of a worker, if it must not fork; a worker's messages are longer.
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
        (life, ours), (ended, theirs) = os.pipe(), os.pipe()
        # If it is gone, this closes the worker's end of the pipe, as any end of the worker does.
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._requests, [b"+"], [pipe.fileno(), life, theirs])
        os.close(life)
        os.close(theirs)
        return Forked(self, ours, ended)

    def end(self) -> None:
        """Kill it; what was forked from it lives on."""
        if self._process.returncode is None:
            kill(self._process)
        self._requests.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Forked(Process):
    """A worker forked from a template."""

    def __init__(self, template: Template, life: int, ended: int) -> None:
        """
        Args:
            template: where it comes from.
            life: the end of a pipe; closing it kills the worker's group.
            ended: the end of a pipe by which the template tells how the worker ended.
        """
        self._template, self._life, self._ended = template, life, ended
        self._status: int | None = None

    def end(self, *, started: bool) -> None:
        if self._life < 0:
            return
        os.close(self._life)
        # One that has not started yet will find the pipe closed: its template may be long in coming to it.
        if started:
            told = os.read(self._ended, 16)
            self._status = int(told) if told else self._template.status
        os.close(self._ended)
        self._life = -1

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
    """Tell how a worker ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(ended, str(status).encode())
    os.close(ended)
    os.close(descriptor)
