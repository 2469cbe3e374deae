"""Exact membership in the input set that the decimals eps and clip describe, and moving a point into it.

All comparisons are between fractions: the radius is the decimal as written, not the float nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if not value.is_finite() or abs(value.adjusted()) > 1000:
        raise UsageError(f"{name}: {text!r} must be finite and of a usable size")
    return Fraction(value)


def intervals(center: NDArray[Any], eps: str, clip: DecimalClip) -> list[Interval]:
    """The exact ends of each coordinate over the ball about ``center`` (n_0,) of radius eps inside ``clip``."""
    radius = decimal_fraction(eps)
    if radius < 0:
        raise UsageError(f"eps: {eps!r} must be >= 0")
    points = [Fraction(float(c)) for c in center]
    if clip is None:
        return [(c - radius, c + radius) for c in points]
    low, high = decimal_fraction(clip[0], "clip"), decimal_fraction(clip[1], "clip")
    return [(max(c - radius, low), min(c + radius, high)) for c in points]


def inside(x: NDArray[Any], center: NDArray[Any], eps: str, norm: str = "inf", clip: DecimalClip = None) -> bool:
    """Whether x (n_0,) lies in the exact ball about ``center`` and inside ``clip``; False for NaN and infinity."""
    x, center = _flat(x), _flat(center)
    if x.shape != center.shape:
        raise ShapeError(f"point: shape {x.shape}, expected {center.shape} as the center")
    return inside_intervals(x, intervals(center, eps, clip)) and _in_ball(x, center, decimal_fraction(eps), norm)


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
    low = np.array([_round_up(e[0], grid) for e in ends], dtype=np.float64)
    high = np.array([_round_up(-e[1], grid) for e in ends], dtype=np.float64) * -1.0 + 0.0
    if not bool((low <= high).all()):
        return None
    with np.errstate(over="ignore"):
        nearest = _flat(x).astype(grid).astype(np.float64) + 0.0
    return np.clip(np.where(np.isnan(nearest), low, nearest), low, high)


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
        DataError: if the set is empty: a coordinate of the center is further than eps outside the clip.
        ShapeError: if x and center differ in size.
    """
    grid = np.float32 if np.asarray(center).dtype == np.float32 else np.float64
    x, center = _flat(x), _flat(center)
    if x.shape != center.shape:
        raise ShapeError(f"point: shape {x.shape}, expected {center.shape} as the center")
    ends = intervals(center, eps, clip)
    empty = next((i for i, (low, high) in enumerate(ends) if low > high), None)
    if empty is not None:
        raise DataError(f"input {empty}: {center[empty]!r} is further than eps {eps} outside --clip; the set is empty")
    moved = into_intervals(x, ends, grid)
    near = into_intervals(center, ends, grid)
    radius = decimal_fraction(eps)
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


def _in_ball(x: Floats, center: Floats, radius: Fraction, norm: str) -> bool:
    if norm not in NORMS:
        raise UsageError(f"norm: {norm!r} is not one of {', '.join(NORMS)}")
    if not np.isfinite(x).all():
        return False
    offsets = (Fraction(a) - Fraction(b) for a, b in zip(x.tolist(), center.tolist(), strict=True) if a != b)
    if norm == "inf":
        return all(abs(o) <= radius for o in offsets)
    if norm == "1":
        return sum((abs(o) for o in offsets), Fraction(0)) <= radius
    return sum((o * o for o in offsets), Fraction(0)) <= radius * radius


def _round_up(value: Fraction, grid: Any) -> float:
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
