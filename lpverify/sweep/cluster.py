"""The workers of a Dask cluster that is there already: tasks go to its scheduler, and outcomes come back.

Every thread of a Dask worker answers in a process of its own (``workers.Pool``), with its limits of time and memory, as
on one machine: what crashes there takes no Dask worker along, and what hangs is ended, which Dask's own cancelling does
not do. When a Dask worker is lost, the scheduler gives its tasks to others, so often as its configuration allows.

Whoever may speak to a Dask scheduler runs code on its workers: use one that only you reach. Workers need the same
lpverify; nothing else of the run is on them, neither model nor data.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice
from queue import Empty, LifoQueue, SimpleQueue
from typing import Any

from distributed import CancelledError, Client, Future, Worker, WorkerPlugin, get_worker

from lpverify import __version__
from lpverify.errors import LpverifyError, ResourceError, UsageError
from lpverify.sweep.spread import Answers, Take
from lpverify.sweep.task import Answer, Task
from lpverify.workers import Failure, Pool

# A task and its limit in seconds.
Item = tuple[Task[Any], float | None]
Setup = Callable[[], Callable[[Task[Any]], Answer[Any]]]

CONNECT_SECONDS = 20.0
# How long a cluster may be without a worker.
WORKER_SECONDS = 120.0
# Bundles at the scheduler for each thread: one that is done, one that waits so that no worker does.
AHEAD = 2
# What a bundle should take: long against the milliseconds that Dask spends on it, short against a run.
BUNDLE_SECONDS = 0.2
MOST_IN_BUNDLE = 64
# How often the number of threads is asked for.
LOOK_SECONDS = 5.0


class SweepWorker(WorkerPlugin):
    """What a Dask worker holds for one sweep: a process for each task that it answers at the same time."""

    def __init__(self, setup: bytes) -> None:
        self._setup = setup

    def setup(self, worker: Worker) -> None:
        """Nothing is started before the first task."""
        whole = worker.memory_manager.memory_limit
        self._memory = int(whole) // worker.state.nthreads if whole else None
        self._idle: LifoQueue[Pool[Task[Any], Answer[Any]]] = LifoQueue()
        self._pools: list[Pool[Task[Any], Answer[Any]]] = []
        self._ended = False

    def teardown(self, worker: Worker) -> None:
        """End the processes; those that a thread of Dask's uses are stopped here, and closed by it."""
        self._ended = True
        for pool in self._pools:
            pool.stop()
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def answer(self, tasks: bytes) -> tuple[bytes, float]:
        """The outcomes of tasks with their limits, both pickled, and the seconds that they took.

        Raises:
            LpverifyError: as ``Pool.map``.
        """
        try:
            pool = self._idle.get_nowait()
        except Empty:
            pool = Pool(pickle.loads(self._setup), 1, self._memory, what="worker")
            self._pools.append(pool)
        began, waiting = time.monotonic(), iter(pickle.loads(tasks))
        try:
            outcomes = [outcome for _, outcome in pool.answers(lambda: next(waiting, None))]
        finally:
            self._idle.put(pool)
            if self._ended:
                self._close_idle()
        return pickle.dumps(outcomes), time.monotonic() - began


def answer(name: str, tasks: bytes) -> tuple[bytes, float]:
    """Runs on a Dask worker: the answer of the plugin that the sweep has there."""
    plugin: SweepWorker = get_worker().plugins[name]
    return plugin.answer(tasks)


def version() -> str:
    """Runs on a Dask worker: its lpverify."""
    return __version__


@contextmanager
def cluster(address: str, setup: Setup) -> Iterator[Answers]:
    """Connect to a scheduler, and have its workers answer tasks as ``Pool.answers`` does.

    Args:
        address: like tcp://127.0.0.1:8786.
        setup: as in ``Pool``; sent to every worker once, also to those that come later.

    Raises:
        ResourceError: if no scheduler answers, or it has no worker.
        UsageError: if a worker has another lpverify, or none.
    """
    name = f"lpverify-{uuid.uuid4().hex}"
    with _quiet(), _connected(address) as client:
        _require_workers(client, address)
        client.register_plugin(SweepWorker(pickle.dumps(setup)), name=name)
        try:
            yield partial(_answers, client, address, name)
        finally:
            # A call to a scheduler that is gone waits for it to come back.
            if client.status == "running":
                with suppress(OSError, TimeoutError, CancelledError, RuntimeError):
                    client.unregister_worker_plugin(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """What is wrong with a cluster is said in one line, by an error; Dask's own account of it has dozens."""
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict if "distributed" in name}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        hint = "start one with `dask scheduler`"
        raise ResourceError(f"scheduler {address}: does not answer ({reason}); {hint}") from None
    try:
        yield client
    finally:
        client.close(timeout=2)


def _require_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        raise ResourceError(f"scheduler {address}: has no worker; start some with `dask worker {address}`") from None
    for worker, found in client.run(version, on_error="return").items():
        if found != __version__:
            what = found if isinstance(found, str) else "none that can be imported"
            raise UsageError(f"scheduler {address}: worker {worker} has lpverify {what}, here is {__version__}")


def _answers(
    client: Client, address: str, name: str, take: Take
) -> Generator[tuple[int, Answer[Any] | Failure], None, None]:
    """Keep every thread busy; outcomes as they come.

    Tasks travel in bundles, of one task at first, then of so many as the last ones' seconds allow. Where a bundle comes
    to nothing, because its task killed a worker of Dask's, each of its tasks travels again, alone.
    """
    bundles: dict[Future, list[tuple[int, Item]]] = {}
    alone: deque[tuple[int, Item]] = deque()
    done: SimpleQueue[Future] = SimpleQueue()
    numbers, keys = count(), count()
    size, slots, looked = 1, 0, -LOOK_SECONDS

    def bundle() -> list[tuple[int, Item]]:
        if alone:
            return [alone.popleft()]
        return [(next(numbers), item) for item in islice(iter(take, None), size)]

    while True:
        if time.monotonic() - looked > LOOK_SECONDS:
            slots, looked = _threads(client, address), time.monotonic()
        while len(bundles) < max(1, AHEAD * slots) and (items := bundle()):
            data = pickle.dumps([item for _, item in items])
            future = client.submit(answer, name, data, key=f"{name}-{next(keys)}", pure=False)
            bundles[future] = items
            future.add_done_callback(done.put)
        if not bundles:
            return
        future = _next(done, client, address)
        items = bundles.pop(future)
        found = _outcomes(future, address)
        if not isinstance(found, Failure):
            outcomes, seconds = found
            size = max(1, min(MOST_IN_BUNDLE, 2 * size, int(BUNDLE_SECONDS * len(items) / max(seconds, 1e-6))))
            for (number, _), outcome in zip(items, outcomes, strict=True):
                yield number, outcome
        elif len(items) == 1:
            yield items[0][0], found
        else:
            alone.extend(items)


def _next(done: SimpleQueue[Future], client: Client, address: str) -> Future:
    """The next future that is done, or the error that no more will be."""
    without = None
    while True:
        with suppress(Empty):
            return done.get(timeout=LOOK_SECONDS)
        without = None if _threads(client, address) else without or time.monotonic()
        if without and time.monotonic() - without > WORKER_SECONDS:
            raise ResourceError(
                f"scheduler {address}: has had no worker for {WORKER_SECONDS:g} s; what was written is kept, and the "
                "same command goes on with it"
            )


def _threads(client: Client, address: str) -> int:
    """How many threads the cluster's workers have together.

    Raises:
        ResourceError: if the scheduler is gone: what it was asked is lost, even if it comes back.
    """
    if client.status == "running":
        with suppress(OSError, TimeoutError, CancelledError):
            return sum(client.nthreads().values())
    raise _gone(address)


def _gone(address: str) -> ResourceError:
    return ResourceError(
        f"scheduler {address}: is gone; what was written is kept, and the same command goes on with it, at this or at "
        "another address"
    )


def _outcomes(future: Future, address: str) -> tuple[list[Answer[Any] | Failure], float] | Failure:
    """What came of each task of a bundle, and the seconds that it took; or why nothing did."""
    try:
        outcomes, seconds = future.result()
        return pickle.loads(outcomes), seconds
    except CancelledError:
        # Of what it was asked by a client that it lost, or after its own end, a scheduler knows nothing.
        raise _gone(address) from None
    except LpverifyError:
        raise
    except Exception as error:
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
