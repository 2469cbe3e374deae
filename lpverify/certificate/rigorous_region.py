"""Input sets in outward-rounded float64, and the least value of a row over them. numpy only."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lpverify.certificate.claim import BallRegion, Claim, decimal
from lpverify.certificate.rigorous_linear import Array, Index, Rows, Windows, to_float

UNIT = 2.0**-53
TINY = 2.0**-1022


@dataclass(frozen=True)
class Region:
    """A batch of input sets in outward-rounded float64: the enclosing box, and for l2 and l1 balls the ball."""

    lower: Array
    upper: Array
    norm: str
    point: Array
    eps: Array

    def minimum(self, rows: Rows, gamma: float) -> tuple[Array, Array]:
        """Lower bounds of w.x and of -w.x for each row, rounding charged: two (B, m)."""
        center = self.lower + (self.upper - self.lower) / 2
        radius = np.maximum(self.upper - center, center - self.lower) * (1 + 4 * UNIT)
        radius = radius + 4 * gamma * (np.abs(center) + radius) + TINY
        middle, spread = inner(rows, center, radius)
        low, high = middle - spread, -middle - spread
        if self.norm == "inf":
            return low, high
        order = 2 if self.norm == "2" else 1
        size = np.linalg.norm(self.point, ord=order, axis=1) + 1e-150  # squares may underflow, here and below
        eps = (self.eps * (1 + 8 * gamma) + 8 * gamma * size) * (1 + 8 * gamma) + TINY
        if isinstance(rows, Windows):
            (inside,) = rows.gather(np.ones_like(self.point))
            rows = rows.with_values(rows.values * inside)
        middle, _ = inner(rows, self.point, None)
        flat = rows.values.reshape(*low.shape, -1) if isinstance(rows, Windows) else rows
        dual = np.linalg.norm(flat, ord=2, axis=2) if self.norm == "2" else np.abs(flat).max(axis=2, initial=0.0)
        reach = eps[:, None] * (dual + 1e-150)
        return np.maximum(low, middle - reach), np.maximum(high, -middle - reach)

    def select(self, examples: Index) -> Region:
        """The input sets of some examples."""
        return Region(
            self.lower[examples], self.upper[examples], self.norm, self.point[examples], self.eps[examples]
        )


def inner(rows: Rows, plain: Array, absolute: Array | None) -> tuple[Array, Array]:
    """The sums of w * plain and of |w| * absolute for each row, tables (B, n) or (B, m, n): two (B, m)."""
    if isinstance(rows, Windows):
        tables = rows.gather(plain) if absolute is None else rows.gather(plain, absolute)
        values = rows.values.reshape(len(rows.values), -1)
        first = np.einsum("rk,rk->r", values, tables[0].reshape(len(values), -1)).reshape(rows.batch, -1)
        if absolute is None:
            return first, np.zeros_like(first)
        second = np.einsum("rk,rk->r", np.abs(values), tables[1].reshape(len(values), -1))
        return first, second.reshape(rows.batch, -1)
    size = np.abs(rows) if absolute is not None else None
    if plain.ndim == 3:
        first = np.einsum("bmn,bmn->bm", rows, np.broadcast_to(plain, rows.shape))
        if size is None or absolute is None:
            return first, np.zeros_like(first)
        return first, np.einsum("bmn,bmn->bm", size, np.broadcast_to(absolute, rows.shape))
    first = np.matmul(rows, plain[:, :, None])[:, :, 0]
    if size is None or absolute is None:
        return first, np.zeros_like(first)
    return first, np.matmul(size, absolute[:, :, None])[:, :, 0]


def down(value: Fraction) -> float:
    """The largest float64 <= value."""
    try:
        near = float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -math.inf
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def up(value: Fraction) -> float:
    """The least float64 >= value."""
    return -down(-value)


def regions(claims: Sequence[Claim]) -> Region:
    """The input sets of several claims (all balls of one norm and clip, or all boxes), rounded outward."""
    first = claims[0].region
    if not isinstance(first, BallRegion):
        lower = np.stack([to_float(c.region.lower) for c in claims])  # type: ignore[union-attr]
        upper = np.stack([to_float(c.region.upper) for c in claims])  # type: ignore[union-attr]
        return Region(lower, upper, "inf", lower, np.zeros(len(claims)))
    point = np.stack([to_float(c.region.center) for c in claims])  # type: ignore[union-attr]
    eps = np.array([up(decimal(c.region.eps)) for c in claims])  # type: ignore[union-attr]
    # point - eps rounds to nearest, so one step outward encloses the exact value; exact for eps = 0.
    step = eps[:, None] > 0
    lower = np.where(step, np.nextafter(point - eps[:, None], -np.inf), point)
    upper = np.where(step, np.nextafter(point + eps[:, None], np.inf), point)
    if first.clip is not None:
        lower = np.maximum(lower, down(decimal(first.clip[0])))
        upper = np.minimum(upper, up(decimal(first.clip[1])))
    return Region(lower, upper, first.norm, point, eps)
