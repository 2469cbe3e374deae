"""The outline of a union of convex polygons, and so its area, exactly: what several of them cover counts once.

An edge of a polygon is part of the outline where no polygon lies just outside of it. Most edges of the images of linear
regions are shared with the image of the next region, on their other side, and are dropped at once; the others, those at
folds and at the image of the border, are cut where they cross each other, and each piece is looked at in its middle.

Tolerance. "Just outside" is ``TOLERANCE`` times the size of the whole away: gaps and polygons thinner than that do not
exist for the outline, and its area is right up to that times its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lpverify.geometry.polygon import Array, Polygon, area

TOLERANCE = 1e-9
# Pairs of points and polygons, or of edges, that are compared at a time.
CHUNK = 2**18
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Outline:
    """The outline of a union.

    Attributes:
        segments: (S, 2, 2) from point to point, the union on their left.
        size: the greatest extent of the polygons.
    """

    segments: Array
    size: float

    @property
    def area(self) -> float:
        """The area of the union (Green's theorem)."""
        if not len(self.segments):
            return 0.0
        x, y = (self.segments - self.segments[0, 0]).transpose(2, 0, 1)
        return 0.5 * float((x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]).sum())

    def rings(self) -> list[Array]:
        """The segments joined to closed rings (k, 2): counter-clockwise around the union, clockwise around holes.

        Points in the middle of straight lines are left out. For pictures: a ring that does not close within the
        tolerance is given as it is.
        """
        ends = self.segments.copy()
        free = np.ones(len(ends), dtype=bool)
        rings = []
        while free.any():
            at = int(free.argmax())
            ring = [ends[at, 0]]
            while True:
                free[at] = False
                ring.append(ends[at, 1])
                gap = np.where(free, np.abs(ends[:, 0] - ring[-1]).max(axis=1), np.inf)
                at = int(gap.argmin())
                if np.abs(ring[0] - ring[-1]).max() <= min(gap[at], 100 * TOLERANCE * self.size) or gap[at] == np.inf:
                    break
                if gap[at] > 1e4 * TOLERANCE * self.size:
                    break
            rings.append(_straightened(np.array(ring[:-1]), TOLERANCE * self.size))
        return [ring for ring in rings if len(ring) > 2]


def outline(polygons: Sequence[Polygon]) -> Outline:
    """The outline of the union of convex polygons, each (k, 2), of either orientation; those without area are left out.
    """
    turned = [p if area(p) >= 0 else p[::-1] for p in polygons]
    corners = np.concatenate(turned) if turned else np.zeros((0, 2))
    size = float(np.ptp(corners, axis=0).max()) if len(corners) else 0.0
    delta = TOLERANCE * size
    kept = [p for p in turned if area(p) > delta * delta]
    if not kept:
        return Outline(np.zeros((0, 2, 2)), size)
    cover = _Cover(kept)
    start, end = np.concatenate(kept), np.concatenate([np.roll(p, -1, axis=0) for p in kept])
    owner = np.repeat(np.arange(len(kept)), [len(p) for p in kept])
    length = np.hypot(*(end - start).T)
    long = length > 4 * delta
    long &= ~_paired(start, end, delta)
    start, end, owner, length = start[long], end[long], owner[long], length[long]
    along = (end - start) / length[:, None]
    out = np.column_stack([along[:, 1], -along[:, 0]])
    first = cover.pairs(start + delta * (along + out))
    both = cover.pairs(end + delta * (out - along), first)
    open_ = np.ones(len(start), dtype=bool)
    open_[both[0]] = False
    start, end, owner, out = start[open_], end[open_], owner[open_], out[open_]
    pieces, source = _cut(start, end, delta)
    middle = pieces.mean(axis=1)
    uncovered = np.ones(len(pieces), dtype=bool)
    uncovered[cover.pairs(middle + delta * out[source])[0]] = False
    # Where the edges of two polygons lie on each other, one of them stands for both.
    least = np.full(len(pieces), len(kept))
    np.minimum.at(least, *cover.pairs(middle - delta * out[source]))
    return Outline(pieces[uncovered & (least == owner[source])], size)


def _paired(start: Array, end: Array, delta: float) -> NDArray[np.bool_]:
    """Which edges another polygon has from end to start: it lies on the other side."""
    there, back = cKDTree(np.hstack([start, end])), cKDTree(np.hstack([end, start]))
    found = there.sparse_distance_matrix(back, delta, output_type="coo_matrix")
    paired = np.zeros(len(start), dtype=bool)
    paired[found.row] = True
    return paired


class _Cover:
    """Which polygons contain a point; a grid of cells says which ones are near."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        longest = max(map(len, polygons))
        self.start = np.stack([np.concatenate([p, np.repeat(p[-1:], longest - len(p), axis=0)]) for p in polygons])
        self.edge = np.stack([
            np.concatenate([np.roll(p, -1, axis=0) - p, np.zeros((longest - len(p), 2))]) for p in polygons
        ])  # fmt: skip
        self.lower, self.upper = lower, upper = self.start.min(axis=1), self.start.max(axis=1)
        self.side = int(np.ceil(2 * np.sqrt(len(polygons))))
        self.origin = lower.min(axis=0)
        self.cell = np.maximum((upper.max(axis=0) - self.origin) / self.side, TINY)
        low, high = self._cells(lower), self._cells(upper)
        wide = high - low + 1
        polygon, step = _counted(wide.prod(axis=1))
        down, right = np.divmod(step, wide[polygon, 0])
        cell = (low[polygon, 1] + down) * self.side + low[polygon, 0] + right
        order = np.argsort(cell, kind="stable")
        self.near = polygon[order]
        self.first = np.searchsorted(cell[order], np.arange(self.side**2 + 1))

    def _cells(self, points: Array) -> NDArray[np.int64]:
        """The column and row (N, 2) of the cell of each point; points outside get the nearest."""
        cells: NDArray[np.int64] = np.floor((points - self.origin) / self.cell).astype(np.int64).clip(0, self.side - 1)
        return cells

    def pairs(
        self, points: Array, among: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All (point, polygon) with the point inside, as two arrays of indices.

        Args:
            points: (N, 2).
            among: the pairs that are tried; None for all.
        """
        if among is not None:
            return self._inside(points, *among)
        column, row = self._cells(points).T
        cell = row * self.side + column
        which, step = _counted(self.first[cell + 1] - self.first[cell])
        polygon = self.near[self.first[cell[which]] + step]
        found = [
            self._inside(points, which[at : at + CHUNK], polygon[at : at + CHUNK])
            for at in range(0, max(1, len(which)), CHUNK)
        ]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def _inside(
        self, points: Array, which: NDArray[np.int64], polygon: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Edge by edge: most pairs end at the box or at the first edges.
        inside = ((points[which] >= self.lower[polygon]) & (points[which] <= self.upper[polygon])).all(axis=1)
        which, polygon = which[inside], polygon[inside]
        for k in range(self.edge.shape[1]):
            inside = _cross(self.edge[polygon, k], points[which] - self.start[polygon, k]) >= 0
            which, polygon = which[inside], polygon[inside]
        return which, polygon


def _counted(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index i repeated counts[i] times, and beside it 0 .. counts[i] - 1."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)


def _cut(start: Array, end: Array, delta: float) -> tuple[Array, NDArray[np.int64]]:
    """Segments (C, 2) to (C, 2) cut where they meet each other: pieces (S, 2, 2), and the segment of each (S,)."""
    edge = end - start
    length = np.hypot(*edge.T)
    low, high = np.minimum(start, end) - delta, np.maximum(start, end) + delta
    places: list[tuple[NDArray[np.int64], Array]] = []
    step = max(1, CHUNK // max(1, len(start)))
    for at in range(0, len(start), step):
        rows = slice(at, at + step)
        i, j = np.nonzero(((low[rows, None] <= high) & (low <= high[rows, None])).all(axis=2))
        i += at
        i, j = i[i != j], j[i != j]
        offset = start[j] - start[i]
        turn = _cross(edge[i], edge[j])
        crossing = np.abs(turn) > TOLERANCE * length[i] * length[j]
        ratio = np.where(crossing, turn, 1.0)
        on_i, on_j = _cross(offset, edge[j]) / ratio, _cross(offset, edge[i]) / ratio
        hits = crossing & (np.abs(on_j - 0.5) * length[j] <= 0.5 * length[j] + delta)
        places.append((i[hits], on_i[hits]))
        for ends in (start, end):
            away = ends[j] - start[i]
            close = np.abs(_cross(away, edge[i])) <= delta * length[i]
            places.append((i[close], (away[close] * edge[i[close]]).sum(axis=1) / length[i[close]] ** 2))
    everyone = np.arange(len(start))
    places += [(everyone, np.zeros(len(start))), (everyone, np.ones(len(start)))]
    index, place = np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places])
    index, place = index[(place >= 0) & (place <= 1)], place[(place >= 0) & (place <= 1)]
    order = np.lexsort((place, index))
    index, place = index[order], place[order]
    real = (index[1:] == index[:-1]) & ((place[1:] - place[:-1]) * length[index[1:]] > delta)
    source, a, b = index[1:][real], place[:-1][real, None], place[1:][real, None]
    return np.stack([start[source] + a * edge[source], start[source] + b * edge[source]], axis=1), source


def _cross(a: Array, b: Array) -> Array:
    """a_1 b_2 - a_2 b_1 of rows (N, 2): (N,)."""
    product: Array = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product


def _straightened(ring: Array, delta: float) -> Array:
    """A ring without the points that lie on the line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    span = np.hypot(*(before + after).T)
    straight: Array = ring[np.abs(_cross(before, after)) > 10 * delta * span]
    return straight
