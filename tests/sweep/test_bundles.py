"""How tasks travel to a cluster: in bundles, each answered once, alone where a bundle came to nothing."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lpverify.sweep.cluster import _answers
from lpverify.workers import Failure


class Done:
    """A future that has ended already."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def add_done_callback(self, call: Callable[[Done], None]) -> None:
        call(self)

    def result(self) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class Scheduler:
    """A client whose workers answer a task by its number, and are killed by some tasks, with all of their bundle."""

    status = "running"

    def __init__(self, poison: set[int], seed: int) -> None:
        self._poison, self._draw = poison, random.Random(seed)
        self.sizes: list[int] = []
        self.keys: list[str] = []

    def nthreads(self) -> dict[str, int]:
        return {"worker": 3}

    def submit(self, do: Any, name: str, data: bytes, key: str, pure: bool) -> Done:
        tasks = [task for task, _ in pickle.loads(data)]
        self.sizes.append(len(tasks))
        self.keys.append(key)
        if self._poison & set(tasks):
            return Done(RuntimeError("its worker was killed"))
        return Done((pickle.dumps([f"answer {task}" for task in tasks]), self._draw.choice([0.0, 0.001, 0.05, 2.0])))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("poison", [set(), {100}, {0}, {499}, {7, 8, 9, 300}])
def test_every_task_is_answered_once_and_a_poison_costs_its_own(poison: set[int], seed: int) -> None:
    client: Any = Scheduler(poison, seed)
    tasks: Any = ((n, 1.0) for n in range(500))
    found = dict(_answers(client, "tcp://here", "sweep", lambda: next(tasks, None)))
    lost = Failure("RuntimeError: its worker was killed")
    assert found == {n: lost if n in poison else f"answer {n}" for n in range(500)}
    assert max(client.sizes) > 8 and Counter(client.keys).most_common(1)[0][1] == 1
