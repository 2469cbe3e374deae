"""The worker's side: what runs in its process."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from lpverify.errors import LpverifyError, SoundnessError
from lpverify.workers.outcome import attempt

# What a worker says when its setup is done; a pickled value is never empty.
READY = b""


def serve(descriptor: int, memory: int | None) -> NoReturn:
    """The main function of a worker that is a fresh interpreter: the setup comes first, by the pipe.

    Args:
        descriptor: of the worker's end of the pipe.
        memory: as in ``Pool``.
    """

    def work() -> None:
        os.set_inheritable(descriptor, False)
        die_with_parent(take_life())
        confine(memory)
        pipe = Connection(descriptor)
        answer_all(pipe, pipe.recv_bytes())

    run(work)


def run(work: Callable[[], object]) -> NoReturn:
    """Do it, and end the process by _exit: a pipe then closes when the exit status is settled, not before."""
    try:
        work()
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # Here, where the traceback still holds what the work had open.
        os._exit(1)
    os._exit(1)


def take_life() -> int:
    """Standard input, a pipe to which the parent never writes, under another number; standard input is empty then."""
    life = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return life


def die_with_parent(life: int) -> None:
    """Have the kernel kill this process's group when the parent's end of this pipe closes.

    It does so on Linux, and also to a solver that never lets another thread of ours run, and to the programs that it
    has started.

    Raises:
        EOFError: if the parent's end is closed already.
    """
    if sys.platform != "linux":
        return
    import fcntl
    import select

    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:
        raise EOFError


def confine(memory: int | None) -> None:
    """Limit the data, dump no core, leave Ctrl-C to the parent, and go first where memory is short."""
    import resource

    if sys.platform == "linux":
        # Where the whole system is short of memory a worker shall go, not the run.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Who ignores it cannot wait for its children.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory is not None:
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        least = memory if most == resource.RLIM_INFINITY else min(memory, most)
        # The hard limit too: the processes that a worker starts shall have no more.
        resource.setrlimit(resource.RLIMIT_DATA, (least, least))


def answer_all(pipe: Connection, setup: bytes) -> None:
    """Say by the pipe that the setup is done, or what became of it; then answer its messages, each a task, by one."""
    ready: list[Callable[[Any], Any]] = []

    def start(data: bytes) -> bytes:
        ready.append(pickle.loads(data)())
        return READY

    def answer(data: bytes) -> bytes:
        return pickle.dumps(ready[0](pickle.loads(data)))

    pipe.send_bytes(_message(start, setup, LpverifyError))
    while True:
        try:
            task = pipe.recv_bytes()
        except MemoryError:
            pipe.send_bytes(pickle.dumps(MemoryError()))
            return
        pipe.send_bytes(_message(answer, task, SoundnessError))


def _message(work: Callable[[bytes], bytes], data: bytes, through: type[LpverifyError]) -> bytes:
    try:
        return pickle.dumps(attempt(work, data, through))
    except through as error:
        return pickle.dumps(type(error)(str(error)))
