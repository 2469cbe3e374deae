"""Exact membership in the input set that the decimals eps and clip describe, and moving a point into it.

All comparisons are between exact numbers: the radius is the decimal as written, not the float nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpverify.attack.integers import Dyadic, dyadic
from lpverify.errors import DataError, ShapeError, UsageError
from lpverify.problem import NORMS

Floats = NDArray[np.float64]
DecimalClip = tuple[str, str] | None
Interval = tuple[Fraction, Fraction]


def decimal_fraction(text: str, name: str = "eps") -> Fraction:
    """The exact value of a decimal as written, "0.1" or "1e-3".

    Raises:
        UsageError: if it is not a finite decimal.
    """
    try:
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        raise UsageError(f"{name}: {text!r} is not a decimal number; write 0.1 with a point") from None
    if not value.is_finite() or abs(value.adjusted()) > 300:
        raise UsageError(f"{name}: {text!r} must be finite and of a usable size")
    return Fraction(value)


def inside(x: NDArray[Any], center: NDArray[Any], eps: str, norm: str = "inf", clip: DecimalClip = None) -> bool:
    """Whether x (n_0,) lies in the exact ball about ``center`` and inside ``clip``; False for NaN and infinity."""
    x, center = _flat(x), _flat(center)
    if x.shape != center.shape:
        raise ShapeError(f"point: shape {x.shape}, expected {center.shape} as the center")
    radius = _radius(eps)
    if not np.isfinite(x).all() or not _in_ball(x, center, radius, norm):
        return False
    if clip is None:
        return True
    low, high = decimal_fraction(clip[0], "clip"), decimal_fraction(clip[1], "clip")
    return not bool(_above(dyadic(x), high).any() or _above(dyadic(-x), -low).any())


def inside_intervals(x: NDArray[Any], ends: Sequence[Interval]) -> bool:
    """Whether every coordinate of x (n_0,) lies between its exact ends; False for NaN and infinity."""
    x = _flat(x)
    if len(x) != len(ends) or not np.isfinite(x).all():
        return False
    return all(low <= Fraction(v) <= high for v, (low, high) in zip(x.tolist(), ends, strict=True))


def into_intervals(x: NDArray[Any], ends: Sequence[Interval], grid: Any = np.float64) -> Floats | None:
    """The floats of dtype ``grid`` between the exact ends that are nearest to x (n_0,), as float64.

    None if the ends of some coordinate have no such float between them.
    """
    low = np.array([round_up(e[0], grid) for e in ends], dtype=np.float64)
    high = np.array([round_up(-e[1], grid) for e in ends], dtype=np.float64) * -1.0 + 0.0
    return _clamped(_flat(x), low, high, grid)


def into_exact_box(
    x: NDArray[Any], center: NDArray[Any], eps: str, norm: str = "inf", clip: DecimalClip = None
) -> Floats | None:
    """Move x (n_0,) into the exact ball of radius eps about ``center``, inside ``clip``.

    The result's coordinates are floats of the center's own dtype (float32 or float64), returned as float64.
    In l2 and l1 the point is drawn towards the center until it is inside exactly.

    Returns:
        The point, or None if no float of that dtype near the center lies in the set (a clip that excludes
        the center can leave none).

    Raises:
        UsageError: for an eps or clip that is no decimal, eps < 0, or an unknown norm.
        DataError: if the center is not finite, or the set is empty: a coordinate of the center is further
            than eps outside the clip.
        ShapeError: if x and center differ in size.
    """
    grid = np.float32 if np.asarray(center).dtype == np.float32 else np.float64
    x, center = _flat(x), _flat(center)
    if x.shape != center.shape:
        raise ShapeError(f"point: shape {x.shape}, expected {center.shape} as the center")
    if not np.isfinite(center).all():
        raise DataError(f"center: input {int(np.flatnonzero(~np.isfinite(center))[0])} is not finite")
    radius = _radius(eps)
    low, high = _least(center, radius, grid), -_least(-center, radius, grid)
    if clip is not None:
        _require_reach(center, radius, eps, clip)
        low = np.maximum(low, round_up(decimal_fraction(clip[0], "clip"), grid))
        high = np.minimum(high, -round_up(-decimal_fraction(clip[1], "clip"), grid))
    moved, near = _clamped(x, low, high, grid), _clamped(center, low, high, grid)
    if moved is None or near is None or _in_ball(moved, center, radius, norm):
        return moved
    length = float(np.linalg.norm(moved - center, ord=float(norm)))
    for slack in range(40, -1, -1):
        share = float(radius) / length * (1 - 2.0**-slack)
        drawn = _towards(near, near + share * (moved - near), grid)
        if _in_ball(drawn, center, radius, norm):
            return drawn
    return near if _in_ball(near, center, radius, norm) else None


def _flat(x: NDArray[Any]) -> Floats:
    return np.asarray(x, dtype=np.float64).ravel()


def _radius(eps: str) -> Fraction:
    radius = decimal_fraction(eps)
    if radius < 0:
        raise UsageError(f"eps: {eps!r} must be >= 0")
    return radius


def _above(values: Dyadic, bound: Fraction) -> NDArray[np.bool_]:
    """Which values are > bound, without rounding."""
    ints, shift = values.ints * bound.denominator, values.exponent
    limit = bound.numerator << max(0, -shift)
    return np.asarray((ints << max(0, shift)) > limit, dtype=bool)


def _difference(x: Floats, center: Floats) -> Dyadic:
    return dyadic(x) + dyadic(-center)


def _in_ball(x: Floats, center: Floats, radius: Fraction, norm: str) -> bool:
    if norm not in NORMS:
        raise UsageError(f"norm: {norm!r} is not one of {', '.join(NORMS)}")
    offset = _difference(x, center)
    if norm == "2":
        square = Dyadic(np.array([(offset.ints * offset.ints).sum()], dtype=object), 2 * offset.exponent)
        return not _above(square, radius * radius)[0]
    size = np.abs(offset.ints)
    length = size.sum() if norm == "1" else size.max()
    return not _above(Dyadic(np.array([length], dtype=object), offset.exponent), radius)[0]


def _least(center: Floats, radius: Fraction, grid: Any) -> Floats:
    """For each coordinate the least float of dtype ``grid`` that is >= center - radius."""
    limits = np.finfo(grid)
    value = np.clip(center - float(radius), float(limits.min), float(limits.max)).astype(grid)
    short = _above(_difference(center, value.astype(np.float64)), radius)
    value = np.where(short, np.nextafter(value, grid(np.inf)), value)
    below = np.maximum(np.nextafter(value, grid(-np.inf)), limits.min)
    short = _above(_difference(center, value.astype(np.float64)), radius)
    room = ~_above(_difference(center, below.astype(np.float64)), radius) & (below < value)
    # Where center - radius nearly cancels, its float is many steps off: those few go through fractions.
    for i in np.flatnonzero(short | room):
        value[i] = round_up(Fraction(center[i]) - radius, grid)
    return np.asarray(value, dtype=np.float64)


def _require_reach(center: Floats, radius: Fraction, eps: str, clip: tuple[str, str]) -> None:
    low, high = decimal_fraction(clip[0], "clip"), decimal_fraction(clip[1], "clip")
    outside = _above(dyadic(center), high + radius) | _above(dyadic(-center), radius - low)
    if low > high or outside.any():
        place = int(np.flatnonzero(outside)[0]) if outside.any() else 0
        raise DataError(
            f"input {place}: {center[place]!r} is further than eps {eps} outside --clip {clip[0]} {clip[1]}; "
            "the set is empty"
        )


def _clamped(x: Floats, low: Floats, high: Floats, grid: Any) -> Floats | None:
    """x rounded to the grid and moved between ends that lie on it; None if some ends leave nothing."""
    if not bool((low <= high).all()):
        return None
    with np.errstate(over="ignore"):
        nearest = x.astype(grid).astype(np.float64)
    return np.clip(np.where(np.isnan(nearest), low, nearest), low, high) + 0.0


def round_up(value: Fraction, grid: Any) -> float:
    """The least float of dtype ``grid`` that is >= value."""
    try:
        rounded = grid(float(value))
    except OverflowError:
        rounded = grid(np.inf if value > 0 else np.finfo(grid).min)
    if np.isinf(rounded):
        return float(rounded) if rounded > 0 else float(np.finfo(grid).min)
    while Fraction(float(rounded)) < value:
        rounded = np.nextafter(rounded, grid(np.inf))
        if np.isinf(rounded):
            return float(rounded)
    below = np.nextafter(rounded, grid(-np.inf))
    while np.isfinite(below) and Fraction(float(below)) >= value:
        rounded, below = below, np.nextafter(below, grid(-np.inf))
    return float(rounded)


def _towards(near: Floats, far: Floats, grid: Any) -> Floats:
    """``far`` on the grid, one step nearer to ``near`` (on the grid) than rounding leaves it, never past it."""
    rounded = far.astype(grid)
    target = near.astype(grid)
    return np.asarray(np.nextafter(rounded, target), dtype=np.float64)
