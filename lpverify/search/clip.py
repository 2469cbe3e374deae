"""What linear bounds over a box leave of it: the part that can hold a counterexample.

A row that is at least w.x + b on a box fails at x only if w.x + b <= 0. A clause is violated only where all of its
rows fail, a claim where some clause is violated. So each input of a box has an interval outside of which every open
clause is proved, by the row that gives the interval's end.

Shapes: ``B`` boxes, ``n_0`` inputs, ``m`` rows, ``c`` clauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]

# An end is moved outward by this share of its distance, so that what is cut off is proved with room for rounding.
ROOM = 0.01


@dataclass(frozen=True, eq=False)
class Planes:
    """Linear lower bounds of a claim's rows over boxes.

    Attributes:
        lower, upper: (B, n_0) the boxes.
        bound: (B, m) the least value of each row's linear bound.
        slopes: (B, m, n_0) its slopes w.
        clauses: the rows of each clause that is to be proved.
    """

    lower: Array
    upper: Array
    bound: Array
    slopes: Array
    clauses: tuple[tuple[int, ...], ...]

    def best(self) -> tuple[Array, Index]:
        """Each clause's greatest bound, (B, c), and the row that has it, (B, c)."""
        rows = [np.array(clause)[self.bound[:, list(clause)].argmax(1)] for clause in self.clauses]
        found = np.stack(rows, 1)
        return np.take_along_axis(self.bound, found, 1), found

    def corners(self) -> Array:
        """The corner of its box where each row's linear bound is least: (B, m, n_0)."""
        return np.where(self.slopes > 0, self.lower[:, None], self.upper[:, None])

    def select(self, boxes: Any) -> Planes:
        """The bounds of some of the boxes."""
        return Planes(self.lower[boxes], self.upper[boxes], self.bound[boxes], self.slopes[boxes], self.clauses)


@dataclass(frozen=True, eq=False)
class Kept:
    """The part of each box that may hold counterexamples.

    Attributes:
        lower, upper: (B, n_0); lower > upper where an input leaves nothing.
        below, above: (B, c, n_0) the row that proves each clause where the input is below (above) its interval.
    """

    lower: Array
    upper: Array
    below: Index
    above: Index


def clip(planes: Planes) -> Kept:
    """The interval of every input outside of which all clauses are proved."""
    best, row = planes.best()
    inputs = planes.lower.shape[1]
    lows, highs, belows, aboves = [], [], [], []
    for place, clause in enumerate(planes.clauses):
        rows = list(clause)
        slopes = planes.slopes[:, rows]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            reach = -planes.bound[:, rows, None] * (1 + ROOM) / np.abs(slopes)
        high = np.where(slopes > 0, planes.lower[:, None] + reach, np.inf)
        low = np.where(slopes < 0, planes.upper[:, None] - reach, -np.inf)
        proved = (best[:, place] > 0)[:, None]
        above, below = high.argmin(1), low.argmax(1)
        highs.append(np.where(proved, -np.inf, high.min(1)))
        lows.append(np.where(proved, np.inf, low.max(1)))
        own = np.broadcast_to(row[:, place, None], (len(row), inputs))
        aboves.append(np.where(proved, own, np.array(rows)[above]))
        belows.append(np.where(proved, own, np.array(rows)[below]))
    lower = np.fmax(planes.lower, np.min(lows, 0))
    upper = np.fmin(planes.upper, np.max(highs, 0))
    return Kept(lower, upper, np.stack(belows, 1), np.stack(aboves, 1))


def sensitivity(planes: Planes, active: Sequence[int] | Array | None = None) -> Array:
    """How much each input moves the linear bounds of the clauses that are open: (B, n_0)."""
    best, row = planes.best()
    width = planes.upper - planes.lower
    worst = best.argmin(1)
    chosen = np.take_along_axis(row, worst[:, None], 1)[:, :, None]
    slopes = np.take_along_axis(planes.slopes, chosen, 1)[:, 0]
    return np.abs(slopes) * width
