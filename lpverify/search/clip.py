"""Linear bounds of a claim over boxes, and what they leave of a box: the part that can hold a counterexample.

A row that is at least w.x + b on a box fails at x only if w.x + b <= 0. A clause is violated only where all of its
rows fail, and then every combination of them with weights >= 0 does; a claim where some clause is violated. So each
input of a box has an interval outside of which every open clause is proved, by what gives the interval's end.

Shapes: ``B`` boxes, ``n_0`` inputs, ``c`` clauses, ``q`` rows of the longest of them, ``p`` bounds of each clause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

# An end is moved outward by this share of its distance, so that what is cut off is proved with room for rounding.
ROOM = 0.01
# Weights are multiples of this: few digits for the exact checker, and equal ones are stored once.
WEIGHT_STEPS = 1024


@dataclass(frozen=True, eq=False)
class Planes:
    """Linear lower bounds of clauses over boxes: at a counterexample of the clause all are <= 0.

    Attributes:
        lower, upper: (B, n_0) the boxes.
        bound: (B, c, p) the least value; minus infinity where a clause has fewer bounds.
        slopes: (B, c, p, n_0).
        weights: (B, c, p, q) the combination of the clause's rows that each of them bounds.
    """

    lower: Array
    upper: Array
    bound: Array
    slopes: Array
    weights: Array

    def select(self, boxes: Any) -> Planes:
        """The bounds of some of the boxes."""
        return Planes(self.lower[boxes], self.upper[boxes], self.bound[boxes], self.slopes[boxes], self.weights[boxes])

    def chosen(self, places: Index) -> tuple[Array, Array, Array]:
        """One bound of each clause, places (B, c): its value (B, c), slopes (B, c, n_0) and weights (B, c, q)."""
        at = places[..., None]
        value = np.take_along_axis(self.bound, at, 2)[..., 0]
        slopes, weights = (np.take_along_axis(x, at[..., None], 2)[:, :, 0] for x in (self.slopes, self.weights))
        return value, slopes, weights

    def worst(self) -> tuple[Index, Array]:
        """The clause furthest from its proof (B,), and the weights of its best bound (B, q)."""
        value, _, weights = self.chosen(self.bound.argmax(2))
        clause = value.argmin(1)
        return clause, weights[np.arange(len(clause)), clause]

    def with_bound(self, clause: Index, bound: Array, slopes: Array, weights: Array) -> Planes:
        """With a further bound of one clause of each box: clause (B,), bound (B,), slopes (B, n_0), weights (B, q)."""
        at, shape = np.arange(len(clause)), self.bound.shape[:2]
        values, planes = np.full(shape, -np.inf), np.zeros((*shape, slopes.shape[1]))
        shares = np.zeros((*shape, weights.shape[1]))
        values[at, clause], planes[at, clause], shares[at, clause] = bound, slopes, weights
        return self._joined(values, planes, shares)

    def with_combinations(self) -> Planes:
        """With a further bound of each clause: the best combination found of the others."""
        return self._joined(*combine(self))

    def _joined(self, bound: Array, slopes: Array, weights: Array) -> Planes:
        pairs = ((self.bound, bound), (self.slopes, slopes), (self.weights, weights))
        return Planes(self.lower, self.upper, *(np.concatenate([old, new[:, :, None]], 2) for old, new in pairs))

    def corners(self) -> Array:
        """The corner of its box where each bound is least: (B, c, p, n_0)."""
        return np.where(self.slopes > 0, self.lower[:, None, None], self.upper[:, None, None])


@dataclass(frozen=True, eq=False)
class Kept:
    """The part of each box that may hold counterexamples.

    Attributes:
        lower, upper: (B, n_0); lower > upper where an input leaves nothing.
        below, above: (B, n_0, c, q) the weights that prove each clause where the input is below (above) its interval.
    """

    lower: Array
    upper: Array
    below: Array
    above: Array


def clip(planes: Planes) -> Kept:
    """The interval of every input outside of which all clauses are proved."""
    best = planes.bound.argmax(2)
    value, _, weights = planes.chosen(best)
    proved = (value > 0)[..., None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = -planes.bound[..., None] * (1 + ROOM) / np.abs(planes.slopes)
    box_lower, box_upper = planes.lower[:, None, None], planes.upper[:, None, None]
    high = np.where(planes.slopes > 0, box_lower + reach, np.inf)
    low = np.where(planes.slopes < 0, box_upper - reach, -np.inf)
    upper = np.where(proved, -np.inf, high.min(2)).max(1)
    lower = np.where(proved, np.inf, low.max(2)).min(1)

    def proof(places: Index) -> Array:
        found = np.take_along_axis(planes.weights[:, :, :, None], places[:, :, None, :, None], 2)[:, :, 0]
        kept = np.where(proved[..., None], weights[:, :, None], found)
        return kept.transpose(0, 2, 1, 3)

    return Kept(np.fmax(lower, planes.lower), np.fmin(upper, planes.upper), proof(low.argmax(2)), proof(high.argmin(2)))


def combine(planes: Planes, rounds: int = 2) -> tuple[Array, Array, Array]:
    """The best combination found of each clause's bounds: its value (B, c), slopes (B, c, n_0) and weights (B, c, q).

    The least value over the box of (1 - t) f + t g is concave and piecewise linear in t, with a corner wherever one
    of the slopes changes its sign; the best of the corners is taken, for g each of the bounds in turn.
    """
    value, slopes, weights = planes.chosen(planes.bound.argmax(2))
    radius = ((planes.upper - planes.lower) / 2)[:, None]
    # Minus infinity, where a clause has fewer bounds, is never multiplied by 0.
    centers = np.where(planes.bound > -np.inf, planes.bound, -1e300) + dot(np.abs(planes.slopes), radius[:, None])
    center = np.where(value > -np.inf, value, -1e300) + dot(np.abs(slopes), radius)
    for row in [*range(planes.bound.shape[2])] * rounds:
        other, other_center = planes.slopes[:, :, row], centers[:, :, row]
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = slopes / (slopes - other)
        steps = np.where((steps > 0) & (steps < 1), np.round(steps * WEIGHT_STEPS) / WEIGHT_STEPS, 0.0)
        mixed = slopes[:, :, None] * (1 - steps[..., None]) + other[:, :, None] * steps[..., None]
        least = center[..., None] * (1 - steps) + other_center[..., None] * steps - dot(np.abs(mixed), radius[:, None])
        best = least.argmax(2)[..., None]
        gains = np.take_along_axis(least, best, 2) > value[..., None]
        step = np.where(gains, np.take_along_axis(steps, best, 2), 0.0)
        slopes = slopes * (1 - step) + other * step
        center = center * (1 - step[..., 0]) + other_center * step[..., 0]
        weights = weights * (1 - step) + planes.weights[:, :, row] * step
        value = center - dot(np.abs(slopes), radius)
    return value, slopes, weights


def dot(one: Array, other: Array) -> Array:
    """Inner products over the last axis."""
    total: Array = (one * other).sum(-1)
    return total
