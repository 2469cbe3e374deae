"""Input sets in outward-rounded float64, and the least value of a row over them. numpy only.

Where the clip cuts an l2 or l1 ball, the least value over the box and over the ball are both too low. A multiplier
theta >= 0 for the ball gives a third bound (weak duality), with d = x - c between the box's ends seen from the center:

    l1  sum of min over d of (w d + theta |d|), less theta eps. The box's point c' nearest to c takes c's place: inside
        the box |x - c| = |x - c'| + |c' - c|, so that d = 0 is in reach and eps shrinks by |c' - c|.
    l2  sum of min over d of (w d + theta d^2 / 2), less theta eps^2 / 2. The parabola lies above its tangent at any
        point z, hence min >= w z + theta z^2 / 2 + min over d of (w + theta z) (d - z), and no z need be optimal.

Any theta is sound, so it is found in plain floats.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.certificate.claim import BallRegion, BoxRegion, Claim, RationalBox, decimal
from lpverify.certificate.rigorous_linear import Array, Index, Rows, Windows, dense, to_float

UNIT = 2.0**-53
TINY = 2.0**-1022
NEWTON_STEPS = 30
TOP_ENTRIES = 64


@dataclass(frozen=True)
class Region:
    """A batch of input sets in outward-rounded float64: the enclosing box, and for l2 and l1 balls the ball."""

    lower: Array
    upper: Array
    norm: str
    point: Array
    eps: Array

    def minimum(self, rows: Rows, gamma: float) -> tuple[Array, Array]:
        """Lower bounds of w.x and of -w.x for each row, rounding charged: two (B, m).

        A single input set serves rows of any number of examples.
        """
        if not isinstance(rows, Windows) and len(self.lower) == 1 < len(rows):
            low, high = self.minimum(rows.reshape(1, -1, rows.shape[2]), gamma)
            return low.reshape(rows.shape[:2]), high.reshape(rows.shape[:2])
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
        low, high = np.maximum(low, middle - reach), np.maximum(high, -middle - reach)
        examples = self._cut()
        if len(examples):
            part, w = self.select(examples), dense(rows)[examples]
            low[examples] = np.fmax(low[examples], part._clipped(w, gamma))
            high[examples] = np.fmax(high[examples], part._clipped(-w, gamma))
        return low, high

    def _cut(self) -> Index:
        """The examples whose ball reaches out of the box."""
        lower, upper = ball_ends(self.point, self.eps)
        return np.flatnonzero(((self.lower > lower) | (self.upper < upper)).any(axis=1))

    def _clipped(self, w: Array, gamma: float) -> Array:
        """Lower bounds of w.x over the ball and the box at once, rounding charged: (B, m, n) -> (B, m)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            bound = self._clipped_l1(w, gamma) if self.norm == "1" else self._clipped_l2(w, gamma)
        return np.where(bound < np.inf, bound, -np.inf)

    def _clipped_l1(self, w: Array, gamma: float) -> Array:
        """w.c' - sum (|w| - theta)+ room - theta (eps - |c' - c|); every term is rounded relative to itself."""
        nearest = np.minimum(np.maximum(self.point, self.lower), self.upper)
        moved = np.abs(nearest - self.point).sum(axis=1)[:, None]
        eps, below, above = self.eps[:, None], nearest - self.lower, self.upper - nearest
        theta = _l1_multiplier(w, below, above, eps - moved)
        middle, middle_size = inner(w, nearest, np.abs(nearest))
        loss, _ = inner(np.maximum(w - theta[:, :, None], 0.0), below, None)
        loss = loss + inner(np.maximum(-w - theta[:, :, None], 0.0), above, None)[0]
        charge = 8 * gamma * (middle_size + loss + theta * (eps + moved)) + TINY
        bound: Array = middle - loss - theta * (eps - moved) - charge
        return bound

    def _clipped_l2(self, w: Array, gamma: float) -> Array:
        """w.c + sum (w z + theta z^2 / 2 + min (w + theta z) (d - z)) - theta eps^2 / 2.

        A term's own roundings are less than 12 u (|w| + theta |z|) (|z| + max |d|), those of w + theta z included,
        which cancels; an underflow in it may be multiplied by d.
        """
        low, high = (self.lower - self.point)[:, None], (self.upper - self.point)[:, None]
        far = np.maximum(np.abs(low), np.abs(high))
        eps = self.eps[:, None]
        theta = _l2_multiplier(w, low, high, eps)
        wide = theta[:, :, None]
        z = np.minimum(np.maximum(-w / wide, low), high)
        slope = w + wide * z
        tangent = np.minimum(slope * (low - z), slope * (high - z))
        size = np.abs(z)
        middle, middle_size = inner(w, self.point, np.abs(self.point))
        plain, square, bent = dot(w, z), dot(z, z), tangent.sum(axis=2)
        own = dot(np.abs(w) + wide * size, size + far)
        charge = 8 * gamma * (middle_size + dot(np.abs(w), size) + theta * (square + eps * eps) - bent)
        charge = charge + 16 * UNIT * own + TINY * (1 + eps + far.sum(axis=2))
        bound: Array = middle + plain + bent + theta / 2 * (square - eps * eps) - charge
        return bound

    def select(self, examples: Index) -> Region:
        """The input sets of some examples."""
        return Region(
            self.lower[examples], self.upper[examples], self.norm, self.point[examples], self.eps[examples]
        )


def _l1_multiplier(w: Array, below: Array, above: Array, budget: Array) -> Array:
    """The |w| (B, m, n) at which the room, added up from the largest |w| on, reaches ``budget`` (B, 1); else 0.

    The room is ``below`` (B, n) where w > 0 and ``above`` elsewhere. A few of the largest |w| mostly are enough.
    """
    size = np.abs(w)
    for count in (min(TOP_ENTRIES, w.shape[2]), w.shape[2]):
        top = np.argpartition(size, w.shape[2] - count, axis=2)[:, :, w.shape[2] - count :]
        order = np.argsort(-np.take_along_axis(size, top, axis=2), axis=2)
        top = np.take_along_axis(top, order, axis=2)
        example = np.arange(len(w))[:, None, None]
        room = np.where(np.take_along_axis(w, top, axis=2) > 0, below[example, top], above[example, top])
        reached = np.cumsum(room, axis=2) >= budget[:, :, None]
        if reached[:, :, -1].all():
            break
    last = np.take_along_axis(top, reached.argmax(axis=2)[:, :, None], axis=2)
    found: Array = np.where(reached[:, :, -1], np.take_along_axis(size, last, axis=2)[:, :, 0], 0.0)
    return found


def _l2_multiplier(w: Array, low: Array, high: Array, eps: Array) -> Array:
    """The theta at which clamp(-w / theta, low, high) has the length eps: (B, m, n) and (B, 1, n) -> (B, m).

    Newton's method on the squared length, which is piecewise linear in the square of s = 1 / theta; concave, so that
    it rises to its end, if the center lies in the box. If not, a step out of the bracket halves that instead. All in
    units of the largest |w| and of eps. NaN where nothing reaches so far: there the box's bound is the best.
    """
    top = np.abs(w).max(axis=2)
    # An error in theta counts squared in the bound, so float32 will do, at half the time.
    v = (w / top[:, :, None]).astype(np.float32)
    low, high = (low / eps[:, :, None]).astype(np.float32), (high / eps[:, :, None]).astype(np.float32)
    corner = np.where(v > 0, low, np.where(v < 0, high, np.minimum(np.maximum(0.0, low), high)))
    s = np.where(dot(corner, corner) > 1, 1 / np.sqrt(dot(v, v)), np.float32(np.nan))
    below, above = np.zeros_like(s), np.full_like(s, np.inf)
    for _ in range(NEWTON_STEPS):
        z = np.minimum(np.maximum(-v * s[:, :, None], low), high)
        free = (z > low) & (z < high)
        growth = dot(v * free, v)
        z[free] = 0
        fixed = dot(z, z)
        short = fixed + growth * s * s <= 1
        below, above = np.where(short, s, below), np.where(short, above, s)
        new = np.sqrt((1 - fixed) / growth)
        halved = np.where(above < np.inf, (below + above) / 2, 2 * s)
        new = np.where((new >= below) & (new <= above) & (new < np.inf), new, halved)
        if not (new != s)[s == s].any():
            break
        s = new
    theta: Array = top / (s.astype(np.float64) * eps)
    return theta


def dot(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """The inner products of rows: two (B, m, n) -> (B, m)."""
    sums: NDArray[Any] = np.einsum("bmn,bmn->bm", first, second)
    return sums


def inner(rows: Rows, plain: Array, absolute: Array | None) -> tuple[Array, Array]:
    """The sums of w * plain and of |w| * absolute for each row, tables (B or 1, n) or (B, m, n): two (B, m)."""
    if isinstance(rows, Windows):
        tables = rows.gather(plain) if absolute is None else rows.gather(plain, absolute)
        values = rows.values.reshape(len(rows.values), -1)
        first = np.einsum("rk,rk->r", values, tables[0].reshape(len(values), -1)).reshape(rows.batch, -1)
        if absolute is None:
            return first, np.zeros_like(first)
        second = np.einsum("rk,rk->r", np.abs(values), tables[1].reshape(len(values), -1))
        return first, second.reshape(rows.batch, -1)
    first = products(rows, plain)
    return first, products(np.abs(rows), absolute) if absolute is not None else np.zeros_like(first)


def products(rows: Array, table: Array) -> Array:
    """Each row (B, m, n) times its own vector (B, m, n), its example's (B, n), or the only one (1, n): (B, m)."""
    if table.ndim == 3:
        return dot(rows, np.broadcast_to(table, rows.shape))
    if len(table) == 1:
        flat: Array = rows.reshape(-1, rows.shape[2]) @ table[0]
        return flat.reshape(rows.shape[:2])
    found: Array = np.matmul(rows, table[:, :, None])[:, :, 0]
    return found


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


def ball_ends(point: Array, eps: Array) -> tuple[Array, Array]:
    """Outward-rounded ends of the box about balls: point (B, n), eps (B,) -> two (B, n)."""
    # point - eps rounds to nearest, so one step outward encloses the exact value; exact for eps = 0.
    step = eps[:, None] > 0
    lower = np.where(step, np.nextafter(point - eps[:, None], -np.inf), point)
    upper = np.where(step, np.nextafter(point + eps[:, None], np.inf), point)
    return lower, upper


def _box(region: BallRegion | BoxRegion | RationalBox) -> tuple[Array, Array]:
    """The ends of a box; rational ones rounded outward."""
    if isinstance(region, RationalBox):
        return np.array([down(v) for v in region.lower]), np.array([up(v) for v in region.upper])
    assert isinstance(region, BoxRegion)
    return to_float(region.lower), to_float(region.upper)


def regions(claims: Sequence[Claim]) -> Region:
    """The input sets of several claims (all balls of one norm and clip, or all boxes), rounded outward."""
    first = claims[0].region
    if not isinstance(first, BallRegion):
        boxes = [_box(c.region) for c in claims]
        lower, upper = np.stack([low for low, _ in boxes]), np.stack([high for _, high in boxes])
        return Region(lower, upper, "inf", lower, np.zeros(len(claims)))
    point = np.stack([to_float(c.region.center) for c in claims])  # type: ignore[union-attr]
    eps = np.array([up(decimal(c.region.eps)) for c in claims])  # type: ignore[union-attr]
    lower, upper = ball_ends(point, eps)
    if first.clip is not None:
        lower = np.maximum(lower, down(decimal(first.clip[0])))
        upper = np.minimum(upper, up(decimal(first.clip[1])))
    return Region(lower, upper, first.norm, point, eps)
