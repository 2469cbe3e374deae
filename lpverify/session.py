"""Session: one network made ready for many batches, and the methods run on it as the settings ask."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, TypeVar

import torch

from lpverify.backends import BACKENDS
from lpverify.bounds import METHODS
from lpverify.bounds.base import AbstractBoundMethod, BoundResult
from lpverify.certificate import rigorous
from lpverify.certificate.graph import parse_network
from lpverify.errors import UsageError, is_out_of_memory
from lpverify.memory import require_memory
from lpverify.network import Network
from lpverify.problem import Region, Specification
from lpverify.serialize import network_bytes
from lpverify.settings import DTYPES, Settings, require_device
from lpverify.workers import Failure, Pool

# Without a timeout, an example may keep a solver so long; and a worker is ended so much later than it should be.
EXAMPLE_SECONDS = 600.0
GRACE_SECONDS = 30.0
# Examples at once, where each needs a solver.
SOLVED_AT_ONCE = 4
# The share of the machine's memory that all workers may hold together.
MEMORY_SHARE = 0.75

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Solve:
    """The task of a worker: one method on one example. Any function of the network can be such a task."""

    method: AbstractBoundMethod
    region: Region
    spec: Specification

    def __call__(self, network: Network) -> BoundResult:
        """The method's bounds."""
        return self.method.bound(network, self.region, self.spec)


def solver_method(settings: Settings) -> str:
    """The method's name if solvers do its work, one example at a time; empty for others and for "auto"."""
    return settings.method if settings.method in METHODS and METHODS[settings.method].isolated else ""


def example_seconds(settings: Settings, otherwise: float = EXAMPLE_SECONDS) -> float:
    """The time that an example may take: the settings' timeout, or ``otherwise`` without one."""
    return otherwise if settings.timeout is None else settings.timeout


def batch_size(network: Network, settings: Settings) -> int:
    """Examples at once: enough to share products, few enough that results come soon and tables stay small."""
    shared = max(1, min(50, 2**19 // sum(network.sizes)))
    if solver_method(settings):
        shared = min(shared, SOLVED_AT_ONCE)
    return settings.batch_size or shared


class Session:
    """One network made ready for the engines, for exact evaluation, for the checker and for solvers.

    A context manager: leaving it ends the solvers' processes.

    Attributes:
        device: where the engines work now; the CPU once the settings' device has failed.
        most: examples at once, after ``halvings`` for want of memory; None: as many as asked.
        notes: what the next result must say of faults.
        replays: how many crashes of solvers were kept for a replay.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
        require_device(settings.device)
        require_memory(network, settings)
        exact = network.detach().to(torch.float64, "cpu")
        self.exact, self.settings = exact, settings
        self.device, self.halvings = settings.device, 0
        self.most: int | None = None
        self.notes: list[str] = []
        self.replays = 0
        try:
            self.engine = exact.to(DTYPES[settings.dtype], settings.device)
        except RuntimeError as error:
            if settings.device == "cpu" or not is_out_of_memory(error):
                raise
            self.notes.append(f"out of memory on {settings.device} for the network: went on on the CPU")
            self.move_to_cpu()
        self.single = exact.to(torch.float32)
        self.plain = parse_network(network_bytes(exact))
        self.checker = rigorous.Network(self.plain)
        if settings.semantics == "float32" and not self.checker.is_float32:
            raise UsageError(
                "semantics: float32 needs a network whose lowered parameters are float32 numbers; "
                f"here some were folded or stored wider ({'; '.join(network.notes) or 'float64 weights'})"
            )
        solver, share = BACKENDS[settings.backend].module, memory_share(settings.workers)
        self._pool: Pool[Any, Any] = Pool(_Worker(exact), settings.workers, share, modules=[solver])
        self._required: set[str] = set()
        self._started = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def move_to_cpu(self) -> None:
        """Go on on the CPU, with batches as they were asked for."""
        self.engine = self.exact.to(DTYPES[self.settings.dtype], "cpu")
        self.device, self.most, self.halvings = "cpu", None, 0

    def take_notes(self) -> tuple[str, ...]:
        """The notes for the next result; they are not said twice."""
        notes = tuple(self.notes)
        self.notes.clear()
        return notes

    @property
    def batch_size(self) -> int:
        """See ``batch_size``."""
        return batch_size(self.exact, self.settings)

    def method(self, name: str, **options: Any) -> AbstractBoundMethod:
        """The method of this name, with the settings' solver options and ``options`` where it has such fields.

        Raises:
            UsageError: if it cannot do what the settings ask on this network.
        """
        kind, settings = METHODS[name], self.settings
        known = {field.name for field in fields(kind)}
        given = {
            "solver": settings.solver,
            "backend": BACKENDS[settings.backend](solver=settings.solver, seed=settings.seed),
            "time_limit": math.inf if settings.time_limit is None else settings.time_limit,
            "seconds": example_seconds(settings),
            "value": settings.objective == "value",
            **options,
        }
        if name == "alpha":
            del given["seconds"]
        method = kind(**{option: value for option, value in given.items() if option in known})
        if method.isolated and name not in self._required:
            for refused in self.run([_Require(method, settings.norm)], EXAMPLE_SECONDS):
                if refused:
                    raise UsageError(refused.reason if isinstance(refused, Failure) else refused)
            self._required.add(name)
        return method

    def bound(self, method: AbstractBoundMethod, region: Region, spec: Specification) -> BoundResult:
        """A method's bounds of a batch, in the engine's arithmetic; gradients only where the method takes them."""
        engine = self.engine
        with torch.set_grad_enabled(method.name == "alpha"):
            return method.bound(engine, region.to(engine.dtype, engine.device), spec.to(engine.dtype, engine.device))

    def solve(
        self, method: AbstractBoundMethod, region: Region, spec: Specification, seconds: float | None = None
    ) -> Iterator[BoundResult | Failure]:
        """A solver-backed method's bounds, one result an example (a batch of one), or why there is none.

        Args:
            seconds: time for an example; by default the method's own.
        """
        if seconds is not None:
            method = replace(method, **{"seconds": seconds})
        region, spec = region.to(torch.float64, "cpu"), spec.to(torch.float64, "cpu")
        tasks = (Solve(method, region.select([i]), spec.select([i])) for i in range(len(spec.d)))
        return self.run(tasks, getattr(method, "seconds", EXAMPLE_SECONDS))

    def start_solver(self) -> float:
        """Have a solver's process ready; the seconds that it took, 0 if there was one."""
        if not self.settings.workers or self._started:
            return 0.0
        began, self._started = time.perf_counter(), True
        for _ in self.run([_Nothing()], EXAMPLE_SECONDS):
            pass
        return time.perf_counter() - began

    def run(self, tasks: Iterable[Callable[[Network], Value]], seconds: float) -> Iterator[Value | Failure]:
        """Call each task on the float64 network in the solvers' processes; outcomes in the order of the tasks.

        Args:
            tasks: functions that can be pickled.
            seconds: what a task should take; one that takes longer by GRACE_SECONDS is ended.
        """
        return self._pool.map(tasks, limit=seconds + GRACE_SECONDS)


@dataclass(frozen=True, eq=False)
class _Nothing:
    """A task that is done once its worker is ready."""

    def __call__(self, network: Network) -> None:
        return None


@dataclass(frozen=True, eq=False)
class _Require:
    """A worker's first task for a method: why it cannot be used, or nothing."""

    method: AbstractBoundMethod
    norm: str

    def __call__(self, network: Network) -> str:
        try:
            self.method.require(network, self.norm)
        except UsageError as error:
            return str(error)
        return ""


@dataclass(frozen=True, eq=False)
class _Worker:
    """What a worker is given: the network, to which it applies one task after the other."""

    network: Network

    def __call__(self) -> Callable[[Callable[[Network], Any]], Any]:
        return self._answer

    def _answer(self, task: Callable[[Network], Any]) -> Any:
        return task(self.network)


def memory_share(workers: int) -> int | None:
    """Bytes for each worker; None where the system does not tell how much there is."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return int(MEMORY_SHARE * whole / max(1, workers))
