"""Worker processes for solvers: one that crashes, hangs or runs out of memory costs one answer, not the run.

Each worker is a fresh interpreter, never a fork, with a pipe of its own: what happens to one cannot spoil another's
messages, and the main module is not run again, so that scripts need no ``if __name__ == "__main__"``. It loads
what its tasks share once (``setup``), then answers one task at a time on one thread; what it prints on standard
output is dropped. One that overruns its limit is killed with every process that it has started; one that is gone
is replaced when a task needs it. No task is tried twice. When the parent dies its workers die too: on Linux at
once, elsewhere when their task is done.

    with Pool(setup, workers=4, memory=4 << 30) as pool:
        for outcome in pool.map(tasks, limit=30.0):
            ...  # what the task returned, or a Failure

``setup`` and the tasks travel pickled: their classes and functions must be in modules that can be imported.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Generic, NoReturn, TypeVar

from lpverify.errors import LpverifyError, ResourceError, SolverError, SoundnessError, UsageError, is_out_of_memory

Task = TypeVar("Task")
Value = TypeVar("Value")

# A start imports torch and cvxpy, perhaps from a slow disk, and runs the setup.
START_SECONDS = 300.0
# The workers share the processors: more threads would mostly wait for each other. Read when torch is imported.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
# What a worker says when its setup is done; a pickled value is never empty.
READY = b""


@dataclass(frozen=True)
class Failure:
    """A task without an answer.

    Attributes:
        reason: one line, fit for a result's reason.
        crashed: the process ended by itself, by a signal or otherwise, as the reason says too.
    """

    reason: str
    crashed: bool = field(default=False, compare=False, repr=False)


class Pool(Generic[Task, Value]):
    """Workers that start with the first tasks and stay until the pool is closed; used as a context manager."""

    def __init__(
        self,
        setup: Callable[[], Callable[[Task], Value]],
        workers: int,
        memory: int | None = None,
        what: str = "solver",
    ) -> None:
        """Nothing is started yet.

        Args:
            setup: called once in every worker; what it returns is called with each task.
            workers: how many processes; 0 answers in this process, where neither limit nor memory is enforced.
            memory: bytes of data that a worker may hold, its modules included (torch and cvxpy: 270 MB); enforced
                where the system limits private memory (Linux does). None: no limit.
            what: what runs in them, for the reasons of failures.

        Raises:
            UsageError: for workers < 0, memory < 1, or workers > 0 on a system without POSIX processes.
        """
        if workers < 0:
            raise UsageError(f"workers: {workers!r} must be >= 0; 0 runs the solvers in this process")
        if workers and os.name != "posix":
            raise UsageError(f"workers: {workers!r} processes need Linux or macOS; pass 0")
        if memory is not None and memory < 1:
            raise UsageError(f"memory: {memory!r} must be >= 1 byte")
        self._setup, self._size, self._what = setup, workers, what
        self._full = "out of memory" if memory is None or not workers else f"out of memory (limit {_gib(memory)})"
        self._memory = memory
        self._workers: list[_Worker] = []
        self._proven = False
        self._here: Callable[[Task], Value] | None = None

    def __enter__(self) -> Pool[Task, Value]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        while self._workers:
            self._end(self._workers[-1])

    def map(self, tasks: Iterable[Task], limit: float | None = None) -> Iterator[Value | Failure]:
        """Answer the tasks: outcomes come in the tasks' order; a task is taken when a worker is free for it.

        If the generator is closed early, or left by an exception, the workers that are busy are ended.

        Args:
            limit: seconds for each task, from when its worker is ready; None: no limit. The workers are attended
                to while the generator runs, not while the caller works on an outcome.

        Raises:
            SoundnessError: as raised in a task.
            LpverifyError: as raised by the setup; SolverError if no worker could be started at all.
            ResourceError: if the system refuses a process.
            UsageError: while another map of this pool is not finished.
        """
        source, turn = iter(tasks), 0
        outcomes: dict[int, Value | Failure] = {}

        def take() -> tuple[Task, float | None] | None:
            return next(((task, limit) for task in source), None)

        with closing(self.answers(take)) as answered:
            for position, outcome in answered:
                outcomes[position] = outcome
                while turn in outcomes:
                    yield outcomes.pop(turn)
                    turn += 1

    def answers(
        self, take: Callable[[], tuple[Task, float | None] | None]
    ) -> Generator[tuple[int, Value | Failure], None, None]:
        """Answer tasks that may follow from one another: outcomes come as soon as they are there.

        Args:
            take: the next task and its limit in seconds (None: no limit), or None while there is none. It is called
                whenever a worker is free; where no worker is busy and there is no task, all is answered.

        Returns:
            The number of each task, counted from 0 as they were taken, and its outcome.

        Raises:
            As ``map``.
        """
        if self._busy():
            raise UsageError("map: another map of this pool is not finished; finish or close it first")
        if not self._size:
            yield from self._answers_here(take)
            return
        count = 0
        outcomes: deque[tuple[int, Value | Failure]] = deque()
        try:
            while True:
                while len(self._busy()) < self._size and (item := take()) is not None:
                    task, limit = item
                    self._free().take(count, pickle.dumps(task), limit)
                    count += 1
                if outcomes:
                    # Only now, so that no worker is idle while the caller works on an outcome.
                    yield outcomes.popleft()
                    continue
                busy = self._busy()
                if not busy:
                    return
                first = min(worker.deadline for worker in busy)
                timeout = None if first == float("inf") else max(0.0, first - time.monotonic())
                heard = wait([worker.pipe for worker in busy], timeout)
                for worker in busy:
                    if worker.pipe in heard:
                        self._listen(worker, outcomes)
                    elif time.monotonic() >= worker.deadline:
                        self._lose(worker, worker.overrun(self._what), outcomes)
        finally:
            for worker in self._busy():
                self._end(worker)

    def _answers_here(
        self, take: Callable[[], tuple[Task, float | None] | None]
    ) -> Iterator[tuple[int, Value | Failure]]:
        for count in itertools.count():
            if (item := take()) is None:
                return
            self._here = self._here or self._setup()
            outcome = _attempt(self._here, item[0], SoundnessError)
            yield count, Failure(self._full) if isinstance(outcome, MemoryError) else outcome

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.position is not None]

    def _free(self) -> _Worker:
        """A worker without a task: an idle one that is still alive, or a new one."""
        for worker in [worker for worker in self._workers if worker.position is None]:
            # An idle worker has nothing to say: its pipe is readable only if it is gone.
            if not worker.pipe.poll():
                return worker
            self._end(worker)
        try:
            self._workers.append(_Worker(pickle.dumps(self._setup), self._memory))
        except OSError as error:
            raise ResourceError(f"workers: the system starts no process ({error.strerror}); ask for fewer") from error
        return self._workers[-1]

    def _listen(self, worker: _Worker, outcomes: deque[tuple[int, Value | Failure]]) -> None:
        """Take what a worker says: that it is ready, its task's outcome, or its end."""
        message = worker.hear()
        if isinstance(message, bytes) and not worker.ready:
            self._proven = True
            worker.begin()
        elif isinstance(message, bytes | Failure) and worker.ready:
            answer = message if isinstance(message, Failure) else _loaded(message)
            outcomes.append((worker.done(), answer))
        elif isinstance(message, LpverifyError):
            raise message
        elif isinstance(message, Failure):
            self._lose(worker, message.reason, outcomes)
        elif isinstance(message, MemoryError):
            # What the solver holds may stay held: the next task gets a new process.
            self._lose(worker, self._full, outcomes)
        else:
            worker.end()
            self._lose(worker, f"{self._what} crashed ({worker.fate})", outcomes, crashed=True)

    def _lose(
        self, worker: _Worker, reason: str, outcomes: deque[tuple[int, Value | Failure]], *, crashed: bool = False
    ) -> None:
        """End a worker and give its task up, or the run if not one worker has ever been ready."""
        self._end(worker)
        if not worker.ready:
            reason = f"a worker could not start: {reason}"
            if not self._proven:
                hint = "" if self._memory is None else f"; the memory limit, {_gib(self._memory)}, may be too small"
                raise SolverError(reason + hint)
        outcomes.append((worker.done(), Failure(reason, crashed and worker.ready)))

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._workers.remove(worker)


class _Worker:
    """The parent's side of one process.

    Attributes:
        pipe: where it answers.
        ready: whether its setup is done.
        position: that of its task, None while it is idle.
        deadline: when it must have answered (``time.monotonic``).
    """

    def __init__(self, setup: bytes, memory: int | None) -> None:
        self.pipe, theirs = Pipe()
        self.ready = False
        self.position: int | None = None
        self.deadline = float("inf")
        self._task, self._limit = b"", float("inf")
        path, call = [str(folder) for folder in sys.path], f"serve({theirs.fileno()}, {memory})"
        program = f"import sys; sys.path[:] = {path!r}; from lpverify.workers import serve; {call}"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._send(setup)

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
        self._send(self._task)

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
            return f"{what} exceeded its limit of {self._limit:g} s and was ended"
        return f"it was not ready after {START_SECONDS:g} s"

    @property
    def fate(self) -> str:
        """How the ended process ended."""
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return f"signal {-code}; is the system short of memory?"
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def end(self) -> None:
        """Kill the process and all that it has started; one that is exiting keeps the status it exits with."""
        if self._process.returncode is None:
            # Its own session: the group holds this worker and its children only, and keeps its id until we wait.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _send(self, data: bytes) -> None:
        # To one that is gone nothing can be sent; its end of the pipe will say so.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(data)


def serve(descriptor: int, memory: int | None) -> NoReturn:
    """The main function of a worker: the setup and then the tasks, until the pipe is closed.

    Args:
        descriptor: of the worker's end of the pipe.
        memory: as in Pool.
    """
    # Whatever happens the process ends by _exit: the pipe then closes when the exit status is settled, not before.
    try:
        os.set_inheritable(descriptor, False)
        _confine(memory)
        _answer_all(Connection(descriptor))
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _confine(memory: int | None) -> None:
    """Limit the data, dump no core, leave Ctrl-C to the parent, and die when the parent dies, or before it."""
    import resource
    import select

    life = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if sys.platform == "linux":
        import fcntl

        # Standard input was a pipe to which the parent never writes. When the parent's end closes, the kernel kills
        # the group: also a solver that never lets another thread of ours run, and the programs that it has started.
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([life], [], [], 0)[0]:
            raise EOFError
        # Where the whole system is short of memory a worker shall go, not the run.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory is not None:
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        least = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (least, most))


def _answer_all(pipe: Connection) -> None:
    """Serve the pipe; the first message is the setup, the others are tasks, each answered by one message."""
    ready: list[Callable[[Any], Any]] = []

    def start(data: bytes) -> bytes:
        ready.append(pickle.loads(data)())
        return READY

    def answer(data: bytes) -> bytes:
        return pickle.dumps(ready[0](pickle.loads(data)))

    pipe.send_bytes(_message(start, pipe.recv_bytes(), LpverifyError))
    while True:
        pipe.send_bytes(_message(answer, pipe.recv_bytes(), SoundnessError))


def _message(work: Callable[[bytes], bytes], data: bytes, through: type[LpverifyError]) -> bytes:
    try:
        return pickle.dumps(_attempt(work, data, through))
    except through as error:
        return pickle.dumps(type(error)(str(error)))


def _attempt(work: Callable[[Task], Value], task: Task, through: type[LpverifyError]) -> Value | Failure | MemoryError:
    """What the work returns, or what became of it; errors of class ``through`` are raised."""
    try:
        return work(task)
    except through:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            return MemoryError()
        return Failure(_line(error))


def _loaded(data: bytes) -> Any:
    """A value that a worker sent, or the Failure to understand it."""
    try:
        return pickle.loads(data)
    except Exception as error:
        return Failure(f"its answer cannot be read: {_line(error)}")


def _line(error: BaseException) -> str:
    """An exception in one line; those of lpverify speak for themselves."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LpverifyError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _gib(memory: int) -> str:
    return f"{memory / 2**30:.3g} GiB"
