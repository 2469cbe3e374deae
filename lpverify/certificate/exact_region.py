"""The input set in exact arithmetic: its ends, membership, and the least value of a row. Standard library only.

Where the clip cuts an l2 or l1 ball, a multiplier theta >= 0 for the ball gives a bound over both (weak duality, the
formulas of ``rigorous_region``). Any theta is sound, and so is any point z: floats choose them, integers do the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import mul

from lpverify.certificate.claim import BallRegion, RationalBox, Region, decimal
from lpverify.certificate.exact_linear import integers, scaled

INPUT_BITS = 80
MULTIPLIER_BITS = 32
POINT_BITS = 60
NEWTON_STEPS = 40


class NoBoundError(Exception):
    """No bound can be had: the region is empty, or float32 evaluation may overflow."""


@dataclass(frozen=True, eq=False)
class Range:
    """lower <= value <= upper for every unit of a node, as integers times 2**exponent."""

    lower: list[int]
    upper: list[int]
    exponent: int


@dataclass(frozen=True, eq=False)
class Ball:
    """The ball of radius ``eps`` in ``norm`` "2" or "1" about ``center`` times 2**exponent."""

    center: list[int]
    exponent: int
    eps: Fraction
    norm: str


@dataclass(frozen=True, eq=False)
class Offsets:
    """The box seen from the ball's center: lower <= x - center <= upper, in integers times the box's power of two.

    Attributes:
        nearest: the offsets of the box's point nearest to the center.
        unit: the exponent of a power of two near eps, in the integers' unit.
        ends: ``lower`` and ``upper`` of each input as floats times 2**unit.
    """

    lower: list[int]
    upper: list[int]
    nearest: list[int]
    unit: int
    ends: list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class ExactRegion:
    """A box, rounded outward, for the norms "2" and "1" the ball inside it, and offsets if the clip cuts that."""

    box: Range
    ball: Ball | None
    offsets: Offsets | None = None

    def minimum(self, entries: dict[int, int], exponent: int) -> Fraction:
        """A lower bound of the row {input: integer} times 2**exponent: the best of the box's, the ball's and both's."""
        box, ball = self.box, self.ball
        least = sum(n * (box.lower[i] if n > 0 else box.upper[i]) for i, n in entries.items())
        over_box = scaled(least, exponent + box.exponent)
        if ball is None:
            return over_box
        middle = scaled(sum(n * ball.center[i] for i, n in entries.items()), exponent + ball.exponent)
        if ball.norm == "1":
            norm = scaled(max(map(abs, entries.values()), default=0), exponent)
        else:
            square = sum(map(mul, entries.values(), entries.values())) << 128
            root = math.isqrt(square)
            norm = scaled(root + (root * root < square), exponent - 64)
        best = max(over_box, middle - ball.eps * norm)  # w.x >= w.center - eps |w| in the dual norm
        if self.offsets is None or not any(entries.values()):
            return best
        clipped = _clipped_l1 if ball.norm == "1" else _clipped_l2
        return max(best, middle + clipped(entries, exponent, self.offsets, self.box.exponent, ball.eps))


def _clipped_l1(entries: dict[int, int], exponent: int, offsets: Offsets, place: int, eps: Fraction) -> Fraction:
    """A lower bound of w.(x - center): theta is the |w| at which the room, from the largest |w| on, reaches eps."""
    nearest = offsets.nearest
    budget = eps - scaled(sum(map(abs, nearest)), place)
    limit = budget / scaled(1, place)
    theta = spent = loss = 0
    for i, n in sorted(entries.items(), key=lambda entry: -abs(entry[1])):
        room = nearest[i] - offsets.lower[i] if n > 0 else offsets.upper[i] - nearest[i]
        if spent + room >= limit:
            theta = abs(n)
            break
        spent, loss = spent + room, loss + abs(n) * room
    moved = sum(n * nearest[i] for i, n in entries.items())
    return scaled(moved - loss + theta * spent, exponent + place) - budget * scaled(theta, exponent)


def _clipped_l2(entries: dict[int, int], exponent: int, offsets: Offsets, place: int, eps: Fraction) -> Fraction:
    """A lower bound of w.(x - center), by tangents at points z of the parabolas w z + theta z^2 / 2."""
    others = [o for i, o in enumerate(offsets.nearest) if o and i not in entries]
    top, half = max(map(abs, entries.values())).bit_length(), scaled(1, -offsets.unit)
    v = [n / (1 << top) for n in entries.values()]
    ends = [offsets.ends[i] for i in entries]
    rest = sum(float(o * half) ** 2 for o in others)
    inverse, power = math.frexp(_l2_multiplier(v, ends, rest, float(eps * half / scaled(1, place))))
    theta = int(math.ldexp(inverse, MULTIPLIER_BITS))
    slope = math.ldexp(theta, power - MULTIPLIER_BITS)
    if not theta:
        return -eps * scaled(sum(map(abs, entries.values())), exponent)
    # In integers: w and theta z at the exponent ``fine``, z at ``place``.
    unit = power - MULTIPLIER_BITS + top + exponent - offsets.unit
    fine = min(unit, exponent)
    theta, raised, shift = theta << (unit - fine), exponent - fine, offsets.unit - POINT_BITS
    double = 0
    for (i, n), x, (low, high) in zip(entries.items(), v, ends, strict=True):
        point = int(math.ldexp(min(max(-x / slope, low), high), POINT_BITS))
        point = point << shift if shift >= 0 else point >> -shift
        w, z = n << raised, min(max(point, offsets.lower[i]), offsets.upper[i])
        tangent = w + theta * z
        end = offsets.lower[i] if tangent > 0 else offsets.upper[i]
        double += (w + tangent) * z + 2 * tangent * (end - z)
    double += theta * sum(o * o for o in others)
    return (scaled(double, fine + place) - eps * eps * scaled(theta, fine - place)) / 2


def _l2_multiplier(v: list[float], ends: list[tuple[float, float]], rest: float, eps: float) -> float:
    """The theta at which clamp(-v / theta, ends) has the length eps, 0 if nothing reaches so far; rest: see below.

    Newton's method on the squared length, with ``rest`` added, which is piecewise linear in the square of
    s = 1 / theta; a step out of the bracket halves that instead.
    """
    signed = list(zip(v, ends, strict=True))
    corner = [(low if x > 0 else high) if x else min(max(0.0, low), high) for x, (low, high) in signed]
    target = eps * eps - rest
    if not sum(z * z for z in corner) > target > 0:
        return 0.0
    s, below, above = math.sqrt(target / sum(x * x for x in v)), 0.0, math.inf
    for _ in range(NEWTON_STEPS):
        fixed = growth = 0.0
        for x, (low, high) in signed:
            z = -x * s
            if z <= low:
                fixed += low * low
            elif z >= high:
                fixed += high * high
            else:
                growth += x * x
        if fixed + growth * s * s <= target:
            below = s
        else:
            above = s
        new = math.sqrt((target - fixed) / growth) if growth > 0 and fixed < target else math.inf
        if not (below <= new <= above and new < math.inf):
            new = (below + above) / 2 if above < math.inf else 2 * s
        if new == s:
            break
        s = new
    return 1 / s


def convert_region(region: Region) -> ExactRegion:
    """The claim's region in integers; raises NoBoundError if its box is empty."""
    ends = region_ends(region)
    box = _input_range(ends)
    if not isinstance(region, BallRegion) or region.norm == "inf":
        return ExactRegion(box, None)
    ball = Ball(*integers(region.center.values()), decimal(region.eps), region.norm)
    cut = region.clip is not None and ends != region_ends(replace(region, clip=None))
    return ExactRegion(box, ball, _offsets(box, ball) if cut else None)


def _offsets(box: Range, ball: Ball) -> Offsets | None:
    """The box seen from the ball's center, rounded outward; None if eps is below the box's resolution."""
    eps = ball.eps / scaled(1, box.exponent)
    unit = eps.numerator.bit_length() - eps.denominator.bit_length()
    if unit < 8:
        return None
    shift = ball.exponent - box.exponent
    if shift >= 0:
        center = [(c << shift, c << shift) for c in ball.center]
    else:
        center = [(c >> -shift, -(-c >> -shift)) for c in ball.center]
    lower = [low - c for low, (_, c) in zip(box.lower, center, strict=True)]
    upper = [high - c for high, (c, _) in zip(box.upper, center, strict=True)]
    nearest = [min(max(0, low), high) for low, high in zip(lower, upper, strict=True)]
    ends = [(low / (1 << unit), high / (1 << unit)) for low, high in zip(lower, upper, strict=True)]
    return Offsets(lower, upper, nearest, unit, ends)


def _input_range(ends: list[tuple[Fraction, Fraction]]) -> Range:
    """The enclosing box, rounded outward to INPUT_BITS bits of its largest end."""
    for index, (low, high) in enumerate(ends):
        if not low <= high:
            raise NoBoundError(f"input {index}: the region is empty: clip leaves nothing of the ball")
    sizes = [f.numerator.bit_length() - f.denominator.bit_length() for pair in ends for f in pair if f]
    exponent = max(sizes, default=0) + 1 - INPUT_BITS
    step = scaled(1, -exponent)
    return Range([math.floor(low * step) for low, _ in ends], [math.ceil(high * step) for _, high in ends], exponent)


def region_ends(region: Region) -> list[tuple[Fraction, Fraction]]:
    """The exact ends of every input over the region's enclosing box."""
    if isinstance(region, RationalBox):
        return list(zip(region.lower, region.upper, strict=True))
    if not isinstance(region, BallRegion):
        return [(Fraction(a), Fraction(b)) for a, b in zip(region.lower.values(), region.upper.values(), strict=True)]
    eps, center = decimal(region.eps), [Fraction(c) for c in region.center.values()]
    if region.clip is None:
        return [(c - eps, c + eps) for c in center]
    low, high = map(decimal, region.clip)
    return [(max(c - eps, low), min(c + eps, high)) for c in center]


def point_meant(region: Region, x: list[Fraction]) -> list[Fraction]:
    """x clamped into a rational box, whose ends need not be floats; in any other region x itself."""
    if not isinstance(region, RationalBox):
        return x
    return [min(max(value, low), high) for value, low, high in zip(x, region.lower, region.upper, strict=True)]


def outside(region: Region, x: list[Fraction]) -> str:
    """Why x is not in the region; empty if it is."""
    for index, (value, (low, high)) in enumerate(zip(x, region_ends(region), strict=True)):
        if not low <= value <= high:
            return f"input {index} of the point lies outside the region"
    if not isinstance(region, BallRegion) or region.norm == "inf":
        return ""
    offsets, eps = [abs(a - Fraction(c)) for a, c in zip(x, region.center.values(), strict=True)], decimal(region.eps)
    inside = sum(offsets) <= eps if region.norm == "1" else sum(o * o for o in offsets) <= eps * eps
    return "" if inside else f"the point lies outside the l{region.norm} ball"
