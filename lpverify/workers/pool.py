"""The pool: tasks handed to workers, and what became of each."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection, wait
from typing import Generic

from lpverify.errors import LpverifyError, ResourceError, SolverError, SoundnessError, UsageError
from lpverify.workers.outcome import Failure, Task, Value, attempt, loaded
from lpverify.workers.process import Fresh, Process
from lpverify.workers.template import POSSIBLE, REFUSED, Template
from lpverify.workers.worker import Worker

# Longer than this no system's wait may be.
LONGEST_WAIT = 86_400.0


class Pool(Generic[Task, Value]):
    """Workers that start with the first tasks and stay until the pool is closed; used as a context manager."""

    def __init__(
        self,
        setup: Callable[[], Callable[[Task], Value]],
        workers: int,
        memory: int | None = None,
        what: str = "solver",
        modules: Sequence[str] = (),
        forks: bool = POSSIBLE,
    ) -> None:
        """Nothing is started yet.

        Args:
            setup: called once in every worker; what it returns is called with each task.
            workers: how many processes; 0 answers in this process, where neither limit nor memory is enforced.
            memory: bytes of data that a worker may hold, its modules included (torch and cvxpy: 270 MB); enforced
                where the system limits private memory (Linux does). None: no limit.
            what: what runs in them, for the reasons of failures.
            modules: what tasks import late, so that it is imported once for all workers, where it can be.
            forks: whether workers may be forked from a template.

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
        self._memory, self._modules, self._forks = memory, modules, forks and POSSIBLE
        self._template: Template | None = None
        self._workers: list[Worker] = []
        self._proven, self._stopped = False, False
        self._here: Callable[[Task], Value] | None = None

    def __enter__(self) -> Pool[Task, Value]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        while self._workers:
            self._end(self._workers[-1])
        self._end_template()

    def stop(self) -> None:
        """From another thread than the one that uses the pool: what runs ends, and no task is taken any more."""
        self._stopped = True
        for worker in list(self._workers):
            worker.kill()
        if (template := self._template) is not None:
            template.kill()

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
                while not self._stopped and len(self._busy()) < self._size and (item := take()) is not None:
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
                timeout = min(LONGEST_WAIT, max(0.0, first - time.monotonic()))
                heard = wait([worker.pipe for worker in busy], timeout)
                for worker in busy:
                    if worker.position is None:
                        # Its task was handed on, for another's words.
                        continue
                    if worker.pipe in heard:
                        self._listen(worker, outcomes)
                    elif time.monotonic() >= worker.deadline:
                        if not worker.ready:
                            # A template that does not come to its end would not fork the next one either.
                            self._end_template()
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
            outcome = attempt(self._here, item[0], SoundnessError)
            yield count, Failure(self._full) if isinstance(outcome, MemoryError) else outcome

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.position is not None]

    def _free(self) -> Worker:
        """A worker without a task: an idle one that is still alive, or a new one."""
        for worker in [worker for worker in self._workers if worker.position is None]:
            # An idle worker has nothing to say: its pipe is readable only if it is gone.
            if not worker.pipe.poll():
                return worker
            self._end(worker)
        return self._new()

    def _new(self) -> Worker:
        """A new worker, whose process starts."""
        if self._stopped:
            raise ResourceError("workers: the pool was stopped")
        try:
            worker = Worker(self._living_template().fork if self._forks else self._fresh)
        except OSError as error:
            raise ResourceError(f"workers: the system starts no process ({error.strerror}); ask for fewer") from error
        self._workers.append(worker)
        if not self._forks:
            worker.send(pickle.dumps(self._setup))
        return worker

    def _fresh(self, pipe: Connection) -> Process:
        return Fresh(pipe, self._memory)

    def _living_template(self) -> Template:
        """The template, a new one if there is none."""
        if self._template is not None and not self._template.is_there:
            self._end_template()
        if self._template is None:
            self._template = Template(pickle.dumps(self._setup), self._modules, self._memory)
        return self._template

    def _end_template(self) -> None:
        if self._template is not None:
            self._template.end()
            self._template = None

    def _listen(self, worker: Worker, outcomes: deque[tuple[int, Value | Failure]]) -> None:
        """Take what a worker says: that it is ready, its task's outcome, or its end."""
        message = worker.hear()
        if message == REFUSED and not worker.ready:
            self._forks = False
            for waiting in [worker for worker in self._busy() if not worker.ready]:
                self._end(waiting)
                waiting.hand_on(self._new())
            self._end_template()
        elif isinstance(message, bytes) and not worker.ready:
            self._proven = True
            worker.begin()
        elif isinstance(message, bytes | Failure) and worker.ready:
            answer = message if isinstance(message, Failure) else loaded(message)
            outcomes.append((worker.done(), answer))
        elif isinstance(message, LpverifyError):
            raise message
        elif isinstance(message, Failure):
            self._lose(worker, message.reason, outcomes)
        elif isinstance(message, MemoryError):
            # What the solver holds may stay held: the next task gets a new process.
            self._lose(worker, self._full, outcomes)
        elif not worker.ready and not worker.is_second and not self._stopped:
            # It has not begun with its task: one more may.
            worker.end(gone=True)
            self._workers.remove(worker)
            second = self._new()
            second.is_second = True
            worker.hand_on(second)
        else:
            worker.end(gone=True)
            self._lose(worker, f"{self._what} crashed ({worker.fate})", outcomes, crashed=True)

    def _lose(
        self, worker: Worker, reason: str, outcomes: deque[tuple[int, Value | Failure]], *, crashed: bool = False
    ) -> None:
        """End a worker and give its task up, or the run if not one worker has ever been ready."""
        self._end(worker)
        if not worker.ready:
            reason = f"a worker could not start: {reason}"
            if not self._proven:
                hint = "" if self._memory is None else f"; the memory limit, {_gib(self._memory)}, may be too small"
                raise SolverError(reason + hint)
        outcomes.append((worker.done(), Failure(reason, crashed and worker.ready)))

    def _end(self, worker: Worker) -> None:
        worker.end()
        self._workers.remove(worker)


def _gib(memory: int) -> str:
    return f"{memory / 2**30:.3g} GiB"
