"""Tasks handed to workers, again where a worker was lost, until every example has its result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lpverify.settings import Settings
from lpverify.sweep.task import Answer, Task
from lpverify.workers import Failure

R = TypeVar("R")

# The next task and its limit in seconds, or None while there is none.
Take = Callable[[], tuple[Task[Any], float | None] | None]
# Answers tasks (``Pool.answers``): the number of each, counted from 0 as they were taken, and its outcome.
Answers = Callable[[Take], Generator[tuple[int, Answer[Any] | Failure], None, None]]
# How often a task is tried, before it is cut into its parts or given up. Parts are tried once.
TRIES = 2


@dataclass(frozen=True, eq=False)
class _Attempt(Generic[R]):
    """A task, and how often it may still be tried."""

    task: Task[R]
    tries: int = TRIES

    def again(self, settings: Settings, reason: str) -> tuple[list[_Attempt[R]], list[R]]:
        """What follows when no answer came: attempts, or the results of examples that are given up."""
        if self.tries > 1:
            return [_Attempt(self.task, self.tries - 1)], []
        if parts := self.task.parts():
            return [_Attempt(part, 1) for part in parts], []
        return [], list(self.task.given_up(settings, f"given up after {TRIES} tries: {reason}"))


def spread(answers: Answers, tasks: Iterable[Task[R]], settings: Settings) -> Iterator[R]:
    """Hand out the tasks; results come as they are found, in no order.

    What a task leaves to do goes before the tasks that follow, so that a run that is stopped has begun little.
    """
    source, waiting = iter(tasks), deque[_Attempt[R]]()
    taken: dict[int, _Attempt[R]] = {}
    count = 0

    def take() -> tuple[Task[R], float] | None:
        nonlocal count
        attempt = waiting.popleft() if waiting else next((_Attempt(task) for task in source), None)
        if attempt is None:
            return None
        taken[count] = attempt
        count += 1
        return attempt.task, attempt.task.seconds(settings)

    with closing(answers(take)) as answered:
        for number, outcome in answered:
            attempt = taken.pop(number)
            if isinstance(outcome, Failure):
                more, results = attempt.again(settings, outcome.reason)
                waiting.extend(more)
                yield from results
            else:
                waiting.extend(map(_Attempt, outcome.left))
                yield from outcome.results
