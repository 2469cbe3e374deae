"""Convex polygons: arrays (k, 2) of vertices in counter-clockwise order, k >= 3 (or 0: empty)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lpverify.errors import DataError

Array = NDArray[np.float64]
Polygon = Array

# Half-planes are cut out of a square that reaches so many times as far from the origin as their lines.
FAR = 1e4
SHORT = 1e-9


def area(polygon: Polygon) -> float:
    """The signed area: > 0 for counter-clockwise vertices (k, 2), 0 for fewer than three."""
    if len(polygon) < 3:
        return 0.0
    # Seen from a vertex, so that a small polygon far from the origin keeps its digits.
    x, y = (polygon - polygon[0]).T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def rectangle(lower: Array, upper: Array) -> Polygon:
    """The rectangle between two corners, each (2,)."""
    (a, b), (c, d) = lower, upper
    return np.array([[a, b], [c, b], [c, d], [a, d]], dtype=np.float64)


def split(polygon: Polygon, values: Array, slack: float) -> tuple[Polygon, Polygon]:
    """The two parts in which an affine function, given by its values (k,) at the vertices, is <= 0 and >= 0.

    Values within ``slack`` of 0 count as 0, so that no part is thinner. Both parts get the same new vertices: together
    they are the polygon, whatever was rounded. A part without area is empty, (0, 2); if all values are 0,
    the first part is.
    """
    values = np.where(np.abs(values) <= slack, 0.0, values)
    low: list[Array] = []
    high: list[Array] = []
    for i, value in enumerate(values):
        if value <= 0:
            low.append(polygon[i])
        if value >= 0:
            high.append(polygon[i])
        j = (i + 1) % len(values)
        if value * values[j] < 0:
            cut = polygon[i] + (polygon[j] - polygon[i]) * (value / (value - values[j]))
            low.append(cut)
            high.append(cut)
    empty = np.zeros((0, 2))
    return (
        np.array(low) if bool((values < 0).any()) else empty,
        np.array(high) if bool((values > 0).any() or (values == 0).all()) else empty,
    )


def clip(polygon: Polygon, normal: Array, offset: float, slack: float = 0.0) -> Polygon:
    """The part of a polygon with normal . p >= offset; (0, 2) where that has no area."""
    return split(polygon, polygon @ normal - offset, slack)[1] if len(polygon) else polygon


def half_planes(normals: Array, offsets: Array) -> Polygon:
    """All p with normals (m, 2) . p >= offsets (m,); each normal of length 1.

    Raises:
        DataError: if that is unbounded, or has a corner as sharp as an unbounded set.
    """
    reach = FAR * (float(np.abs(offsets).max()) or 1.0)
    polygon = rectangle(np.array([-reach, -reach]), np.array([reach, reach]))
    for normal, offset in zip(normals, offsets, strict=True):
        polygon = clip(polygon, normal, float(offset))
    if len(polygon) and np.abs(polygon).max() >= reach:
        raise DataError(f"half_planes: {len(normals)} half-planes leave an unbounded set; give directions all around")
    return polygon


def hull(points: Array) -> Polygon:
    """The convex hull of points (N, 2), without vertices inside its edges (Andrew's monotone chain)."""
    points = np.unique(points, axis=0)
    if len(points) < 3:
        return points
    chains = []
    for ordered in (points, points[::-1]):
        chain: list[Array] = []
        for point in ordered:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return np.array(chains[0] + chains[1])


def _turn(a: Array, b: Array, c: Array) -> float:
    """Twice the area of the triangle a, b, c, > 0 if it turns left."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def contains(polygon: Polygon, points: Array, slack: float = 0.0) -> NDArray[np.bool_]:
    """Which points (N, 2) lie in a convex polygon, or outside by at most ``slack`` from each edge's line: (N,).

    Edges shorter than ``SHORT`` times the polygon, whose direction is mostly rounding, do not count.
    """
    inside = np.full(len(points), len(polygon) > 0)
    size = float(np.ptp(polygon, axis=0).max()) if len(polygon) else 0.0
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = end - start
        length = float(np.hypot(*edge))
        if length > SHORT * size:
            across = edge[0] * (points[:, 1] - start[1]) - edge[1] * (points[:, 0] - start[0])
            inside &= across >= -slack * length
    return inside
