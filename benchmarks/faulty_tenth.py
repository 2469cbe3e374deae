"""A solver interface that is faulty for a tenth of its programs, for ``solver_faults.py``."""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from lying_backends import not_numbers, random_duals, wrong_sign

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution
from lpverify.backends.highs import HighsBackend
from lpverify.program import Array, Program

LIES = {"nan": not_numbers, "sign": wrong_sign, "duals": random_duals}
FAULTS = ("segfault", "abort", "hang", "late", *LIES)


class FaultyTenth(AbstractSession):
    """HiGHS, or a fault in its place."""

    def __init__(self, program: Program, log: str, limit: float) -> None:
        self._session, self._fault, self._limit = HighsBackend().open(program), "", limit
        drawn = zlib.crc32(np.concatenate([program.lower, program.upper]).tobytes())
        if log and drawn % 10 == 0:
            self._fault = FAULTS[drawn // 10 % len(FAULTS)]
        if log:
            with open(log, "a") as file:
                file.write(f"{self._fault or 'honest'}\n")

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        if self._fault == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault == "abort":
            os.abort()
        if self._fault == "hang":
            time.sleep(3600)
        if self._fault == "late":
            time.sleep(min(time_limit, self._limit) + 0.5)
        found = self._session.minimise(objective, offset, time_limit=time_limit, stop_at=stop_at)
        return LIES[self._fault](found) if self._fault in LIES else found


@dataclass(frozen=True)
class FaultyTenthBackend(AbstractBackend):
    """``solver`` is the file in which it says what it did, and its limit in seconds; without it all is honest."""

    name: ClassVar[str] = "faulty-tenth"

    def open(self, program: Program) -> AbstractSession:
        log, _, limit = self.solver.rpartition("@")
        return FaultyTenth(program, log, float(limit or 0))

    def start(self, program: Program) -> AbstractSession:
        raise NotImplementedError

    def solve(self, program: Program, *, time_limit: float = math.inf, stop_at: float | None = None) -> Solution:
        """Honest, as methods try one column so before a run."""
        return HighsBackend().solve(program, time_limit=time_limit, stop_at=stop_at)
