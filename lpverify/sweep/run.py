"""A sweep from its tasks to its results, on the workers that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lpverify.errors import UsageError
from lpverify.network import Network
from lpverify.session import Session, memory_share
from lpverify.settings import Settings
from lpverify.sweep.spread import Answers, spread
from lpverify.sweep.task import Answer, Task
from lpverify.workers import Pool

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Setup:
    """What every worker is given once: the network and the settings, from which it opens its session.

    Attributes:
        required: the method that the session must be able to run; "" for none.
    """

    network: Network
    settings: Settings
    required: str = ""

    def __call__(self) -> Callable[[Task[Any]], Answer[Any]]:
        session = Session(self.network, self.settings)
        if self.required:
            session.method(self.required)

        def answer(task: Task[Any]) -> Answer[Any]:
            return task(session)

        return answer


def sweep(network: Network, settings: Settings, tasks: Iterable[Task[R]], required: str = "") -> Iterator[R]:
    """Do the tasks: in this process, on ``settings.workers`` processes, or on the cluster of ``settings.scheduler``.

    Args:
        network: the lowered network.
        tasks: taken as workers are free for them.
        required: a method that must be able to do what the settings ask; it is refused before any task.

    Returns:
        The results: in the order of the tasks from this process, else as they come.

    Raises:
        SoundnessError: as raised in a task.
        UsageError: for settings that a session refuses, or where Dask is not installed.
        ResourceError: if no process can be started, or the cluster is gone.
    """
    if settings.workers <= 1 and not settings.scheduler:
        with Session(network, settings) as session:
            if required:
                session.method(required)
            for task in tasks:
                yield from task.run(session)
        return
    own = replace(settings, workers=min(1, settings.workers), scheduler="")
    setup = Setup(network.detach().to(device="cpu"), own, required)
    with _workers(setup, settings) as answers:
        yield from spread(answers, tasks, own)


def _workers(setup: Setup, settings: Settings) -> AbstractContextManager[Answers]:
    if settings.scheduler:
        try:
            from lpverify.sweep.cluster import cluster
        except ImportError:
            raise UsageError("scheduler: needs Dask; install it with pip install 'lpverify[distributed]'") from None
        return cluster(settings.scheduler, setup)
    return _processes(setup, settings.workers)


@contextmanager
def _processes(setup: Setup, workers: int) -> Iterator[Answers]:
    with Pool[Task[Any], Answer[Any]](setup, workers, memory_share(workers), what="worker") as pool:
        yield pool.answers
