"""Solver interfaces that lie, fail or never return; each wraps HiGHS where it needs a plausible answer."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status
from lpverify.backends.cvxpy import CvxpyBackend
from lpverify.backends.highs import HighsBackend
from lpverify.program import Array, Program

Lie = Callable[[Solution], Solution]


class LyingSession(AbstractSession):
    """HiGHS's answers after a lie was told about them."""

    def __init__(self, program: Program, lie: Lie) -> None:
        self._session, self._lie = HighsBackend().open(program), lie

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        return self._lie(self._session.minimise(objective, offset, time_limit=time_limit, stop_at=stop_at))


def wrong_sign(found: Solution) -> Solution:
    duals = None if found.row_duals is None else -found.row_duals
    return replace(found, row_duals=duals, bound=abs(found.bound) + 1.0, objective=-found.objective)


def random_duals(found: Solution) -> Solution:
    random = np.random.default_rng(abs(hash(round(found.objective, 6))) % 2**32)
    if found.row_duals is None:
        return replace(found, bound=found.bound + 5.0)
    return replace(found, row_duals=random.normal(size=found.row_duals.shape) * 10.0, bound=found.objective + 5.0)


def wrong_value(found: Solution) -> Solution:
    return replace(found, status=Status.OPTIMAL, bound=100.0, objective=100.0)


def infeasible(found: Solution) -> Solution:
    return Solution(Status.INFEASIBLE, bound=math.inf)


def not_numbers(found: Solution) -> Solution:
    nan = None if found.row_duals is None else np.full_like(found.row_duals, np.nan)
    x = None if found.x is None else np.full_like(found.x, np.nan)
    return replace(found, status=Status.OPTIMAL, x=x, row_duals=nan, bound=math.nan, objective=-1.0)


def outside(found: Solution) -> Solution:
    """A point far outside the region, sold as one where the claim fails."""
    return replace(found, x=None if found.x is None else found.x * 50.0 - 7.0, objective=-3.0)


def wrong_shape(found: Solution) -> Solution:
    duals = None if found.row_duals is None else found.row_duals[:-1]
    return replace(found, row_duals=duals, x=np.zeros(3), bound=1.0)


def too_good(found: Solution) -> Solution:
    """What a solver with loose tolerances says: a little above the truth, with its true duals."""
    return replace(found, bound=found.bound + 1e-3 * (1 + abs(found.bound)))


LIES: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (wrong_sign, random_duals, wrong_value, infeasible, not_numbers, outside, wrong_shape, too_good)
}


@dataclass(frozen=True)
class LyingBackend(AbstractBackend):
    """``solver`` names the lie."""

    name: ClassVar[str] = "lying"

    def open(self, program: Program) -> AbstractSession:
        return LyingSession(program, LIES[self.solver])

    def start(self, program: Program) -> AbstractSession:
        raise NotImplementedError

    def solve(self, program: Program, *, time_limit: float = math.inf, stop_at: float | None = None) -> Solution:
        """Honest, as methods try one column so before a run."""
        return HighsBackend().solve(program, time_limit=time_limit, stop_at=stop_at)


class FaultySession(AbstractSession):
    """``fault`` happens instead of a solve."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        if self._fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault == "hang":
            time.sleep(600)
        if self._fault == "memory":
            raise MemoryError
        raise RuntimeError("the solver's licence has expired")


@dataclass(frozen=True)
class FaultyBackend(AbstractBackend):
    """``solver`` names the fault: "crash", "hang", "memory" or "error"."""

    name: ClassVar[str] = "faulty"

    def open(self, program: Program) -> AbstractSession:
        return FaultySession(self.solver)

    def start(self, program: Program) -> AbstractSession:
        raise NotImplementedError

    def solve(self, program: Program, *, time_limit: float = math.inf, stop_at: float | None = None) -> Solution:
        """Honest, as methods try one column so before a run."""
        honest = HighsBackend() if program.cone is None else CvxpyBackend()
        return honest.solve(program, time_limit=time_limit, stop_at=stop_at)
