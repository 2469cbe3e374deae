"""Contenders of a speed comparison: timed runs in turn, the best batch size, and whether margins agree."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

# What two computations of one bound may differ by, relative to 1 + |bound|; the exact checker rounds slopes.
TOLERANCE = {"float32": 2e-4, "float64": 1e-9, "integers": 1e-6}


@dataclass
class Contender:
    """One row of the table: ``run(batch size)`` goes through all images and returns margins (N, m)."""

    task: str
    tool: str
    dtype: str
    run: Callable[[int], Tensor]
    against: tuple[str, str, str] | None = None
    batch_size: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    margins: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, tool and dtype."""
        return self.task, self.tool, self.dtype

    @property
    def images(self) -> int:
        """How many images have margins."""
        return int(self.margins.isfinite().all(1).sum())


def timed(contender: Contender) -> float:
    """One run: seconds of CPU time; the run's times and margins are kept."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    contender.margins = contender.run(contender.batch_size).detach()
    contender.wall.append(time.perf_counter() - wall)
    contender.cpu.append(time.process_time() - cpu)
    return contender.cpu[-1]


def tune(contender: Contender, sizes: Sequence[int]) -> None:
    """Keep the batch size of the fastest run: rising sizes, until one is clearly slower than the best so far."""
    seconds: dict[int, float] = {}
    for size in sizes:
        best = min(seconds.values(), default=float("inf"))
        contender.batch_size = size
        seconds[size] = timed(contender)
        # The first run at a size may have prepared something; only a hopeless one is not repeated.
        if seconds[size] < 2 * best:
            seconds[size] = timed(contender)
        if seconds[size] > 1.2 * best:
            break
    contender.batch_size = min(seconds, key=seconds.__getitem__)
    contender.wall.clear()
    contender.cpu.clear()
    tried = ", ".join(f"{size}: {1e3 * s / len(contender.margins):.2f}" for size, s in seconds.items())
    print(f"  {' '.join(contender.key)}: ms an image by batch size {tried}", flush=True)


def times_slower(row: Contender, other: Contender) -> float:
    """The ratio of CPU times, taken round by round where both ran in every round."""
    if len(row.cpu) == len(other.cpu):
        ratio = median(a / b for a, b in zip(row.cpu, other.cpu, strict=True))
    else:
        ratio = median(row.cpu) / median(other.cpu)
    return ratio * other.images / row.images


def difference(row: Contender, reference: Contender) -> tuple[float, float]:
    """How far a row's margins lie above and below the reference's, relative to 1 + |margin|."""
    gap = (row.margins.double() - reference.margins.double()) / (1 + reference.margins.double().abs())
    gap = gap[gap.isfinite().all(1)]
    return max(0.0, float(gap.max())), max(0.0, float(-gap.min()))


def agrees(row: Contender, above: float, below: float) -> bool:
    """The dual network is one number whoever computes it; CROWN and the checkers must not exceed ours."""
    tolerance = TOLERANCE[row.dtype]
    return above <= tolerance and (row.task != "dual" or below <= tolerance)
