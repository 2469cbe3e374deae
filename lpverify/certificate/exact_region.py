"""The input set in exact arithmetic: its ends, membership, and the least value of a row. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from operator import mul

from lpverify.certificate.claim import BallRegion, BoxRegion, decimal
from lpverify.certificate.exact_linear import integers, scaled

INPUT_BITS = 80


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
class ExactRegion:
    """A box, rounded outward, and for the norms "2" and "1" the ball inside it."""

    box: Range
    ball: Ball | None

    def minimum(self, entries: dict[int, int], exponent: int) -> Fraction:
        """A lower bound of the row {input: integer} times 2**exponent: the better of the box's and the ball's."""
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
        return max(over_box, middle - ball.eps * norm)  # w.x >= w.center - eps |w| in the dual norm


def convert_region(region: BallRegion | BoxRegion) -> ExactRegion:
    """The claim's region in integers; raises NoBoundError if its box is empty."""
    ball = None
    if isinstance(region, BallRegion) and region.norm != "inf":
        ball = Ball(*integers(region.center.values()), decimal(region.eps), region.norm)
    return ExactRegion(_input_range(region_ends(region)), ball)


def _input_range(ends: list[tuple[Fraction, Fraction]]) -> Range:
    """The enclosing box, rounded outward to INPUT_BITS bits of its largest end."""
    for index, (low, high) in enumerate(ends):
        if not low <= high:
            raise NoBoundError(f"input {index}: the region is empty: clip leaves nothing of the ball")
    sizes = [f.numerator.bit_length() - f.denominator.bit_length() for pair in ends for f in pair if f]
    exponent = max(sizes, default=0) + 1 - INPUT_BITS
    step = scaled(1, -exponent)
    return Range([math.floor(low * step) for low, _ in ends], [math.ceil(high * step) for _, high in ends], exponent)


def region_ends(region: BallRegion | BoxRegion) -> list[tuple[Fraction, Fraction]]:
    """The exact ends of every input over the region's enclosing box."""
    if isinstance(region, BoxRegion):
        return [(Fraction(a), Fraction(b)) for a, b in zip(region.lower.values(), region.upper.values(), strict=True)]
    eps, center = decimal(region.eps), [Fraction(c) for c in region.center.values()]
    if region.clip is None:
        return [(c - eps, c + eps) for c in center]
    low, high = map(decimal, region.clip)
    return [(max(c - eps, low), min(c + eps, high)) for c in center]


def outside(region: BallRegion | BoxRegion, x: list[Fraction]) -> str:
    """Why x is not in the region; empty if it is."""
    for index, (value, (low, high)) in enumerate(zip(x, region_ends(region), strict=True)):
        if not low <= value <= high:
            return f"input {index} of the point lies outside the region"
    if isinstance(region, BoxRegion) or region.norm == "inf":
        return ""
    offsets, eps = [abs(a - Fraction(c)) for a, c in zip(x, region.center.values(), strict=True)], decimal(region.eps)
    inside = sum(offsets) <= eps if region.norm == "1" else sum(o * o for o in offsets) <= eps * eps
    return "" if inside else f"the point lies outside the l{region.norm} ball"
