"""What a call costs: CPU seconds, and the memory that it needs at most beyond what was there before.

Seconds are the process's CPU time (of all its threads; callers keep to one), so that other programs on the machine
count as little as they can. Memory is resident: Linux forgets the greatest size so far when asked
(``/proc/self/clear_refs``) and malloc is told to give large blocks back at once, which costs time: measure times first.
"""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

Run = Callable[[], object]
# A round of a quick call repeats it for so many seconds.
ROUND_SECONDS = 0.02
MIB = 2**20
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1


@dataclass
class Timing:
    """Seconds a call, one entry a round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def line(self) -> dict[str, object]:
        """Columns of a CSV."""
        return {"seconds": median(self.rounds), "seconds_min": min(self.rounds), "seconds_max": max(self.rounds),
                "rounds": len(self.rounds)}  # fmt: skip


def time_in_turn(runs: Sequence[Run], rounds: int) -> list[Timing]:
    """All runs in turn, ``rounds`` times after a first call of each that only warms up."""
    repeats = []
    for run in runs:
        run()
        repeats.append(max(1, math.ceil(ROUND_SECONDS / max(1e-6, _seconds(run, 1)))))
    timings = [Timing() for _ in runs]
    for _ in range(rounds):
        for run, times, timing in zip(runs, repeats, timings, strict=True):
            timing.rounds.append(_seconds(run, times))
    return timings


def _seconds(run: Run, times: int) -> float:
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - began) / times


def peak_bytes(run: Run) -> int:
    """By how much the resident memory grows at most during one call; Linux with glibc only."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 64 * 1024)
    libc.mallopt(_TRIM_THRESHOLD, 0)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    result = run()
    grown = _status("VmHWM") - before
    del result
    return max(0, grown)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
