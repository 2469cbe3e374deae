"""Exact minima of tiny networks: the input set is cut into cells on which every neuron and every row is linear.

A cell is held by its vertices. Where all ReLUs so far keep their sign the next pre-activation is linear, so its values
at the vertices, from the network's own forward pass in float64, say where it changes sign. Nothing here is a linear
program or knows of relaxations; minima are right up to rounding, about 1e-12 of the values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from checking import to_float
from numpy.typing import NDArray

from lpverify.certificate.claim import BoxRegion, Claim, ClauseRows, RationalBox
from lpverify.certificate.rigorous_claim import claim_rows
from lpverify.network import Network, as_numpy

Array = NDArray[np.float64]
# Values nearer to 0 than this share of the largest one are rounding.
ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class Cell:
    """A polytope: ``points`` (V, n_0), and ``facets`` (V, F), which facets each of them lies on."""

    points: Array
    facets: NDArray[np.bool_]
    dimension: int

    def edges(self) -> list[tuple[int, int]]:
        """The pairs of vertices that an edge joins."""
        every = range(len(self.points))
        return [(p, q) for p, q in itertools.combinations(every, 2) if self._joined(np.array([p]), np.array([q]))[0][0]]

    def split(self, values: Array) -> tuple[list[Cell], list[Array]]:
        """Both sides of 0 of the linear function ``values`` (V,) at the vertices, or the cell; with its values."""
        return self.split_all(values[:, None], 0)

    def split_all(self, values: Array, at: int) -> tuple[list[Cell], list[Array]]:
        """As ``split`` by column ``at`` of linear functions (V, k); the parts with the values of all of them."""
        own = values[:, at]
        side = np.where(np.abs(own) <= ZERO * np.abs(own).max(initial=0), 0, np.sign(own)).astype(int)
        above, below = np.flatnonzero(side > 0), np.flatnonzero(side < 0)
        if not len(above) or not len(below):
            return [self], [values]
        p, q = np.repeat(above, len(below)), np.tile(below, len(above))
        joined, common = self._joined(p, q)
        p, q, common = p[joined], q[joined], common[joined]
        share = (own[p] / (own[p] - own[q]))[:, None]
        points = self.points[p] + share * (self.points[q] - self.points[p])
        between = values[p] + share * (values[q] - values[p])
        between[:, at] = 0.0
        cells, parts = [], []
        for sign in (1, -1):
            kept = side * sign >= 0
            new = np.concatenate([side[kept] == 0, np.ones(len(p), bool)])
            facets = np.column_stack([np.concatenate([self.facets[kept], common]), new])
            facets = facets[:, facets.sum(0) >= self.dimension]
            cells.append(Cell(np.concatenate([self.points[kept], points]), facets, self.dimension))
            parts.append(np.concatenate([values[kept], between]))
        return cells, parts

    def _joined(self, p: NDArray[np.int64], q: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether pairs are joined by an edge: no other vertex is on all facets that both are on. And these facets."""
        common = self.facets[p] & self.facets[q]
        missed = common.astype(np.int32) @ (~self.facets).T.astype(np.int32)
        return (missed == 0).sum(1) == 2, common


def box_cell(lower: Array, upper: Array) -> Cell:
    """The box [lower, upper], each (n_0,); inputs that do not move count for no dimension."""
    free = np.flatnonzero(lower < upper)
    sides = np.array(list(itertools.product((False, True), repeat=len(free))), bool).reshape(-1, len(free))
    points = np.repeat(lower[None], len(sides), 0)
    points[:, free] = np.where(sides, upper[free], lower[free])
    return Cell(points, np.concatenate([sides, ~sides], 1), len(free))


def cells(network: Network, start: Cell) -> list[Cell]:
    """The cells of ``start`` on which every ReLU of the network keeps its sign."""
    found = [start]
    for relu in network.relus:
        (before,) = network.sources(relu)
        found = _cut(found, as_numpy(_node_values(network, before, found)))
    return found


def _node_values(network: Network, node: int, found: Sequence[Cell]) -> torch.Tensor:
    points = torch.from_numpy(np.concatenate([cell.points for cell in found]))
    return points if node == 0 else Network(network.nodes[: node + 1]).forward(points)


def _cut(found: Sequence[Cell], values: Array) -> list[Cell]:
    """Cut cells by all columns of functions that are linear on each of them, (all vertices, k)."""
    ends = np.cumsum([len(cell.points) for cell in found])[:-1]
    done: list[Cell] = []
    for cell, own in zip(found, np.split(values, ends), strict=True):
        parts = [(cell, own)]
        for at in range(own.shape[1]):
            parts = [pair for part, v in parts for pair in zip(*part.split_all(v, at), strict=True)]
        done += [part for part, _ in parts]
    return done


@dataclass(frozen=True, eq=False)
class Least:
    """The least margin of a claim: ``value``, where, and the ``spread`` of margins over the points tried."""

    value: float
    point: Array
    spread: float


def plain_rows(claim: Claim) -> tuple[Array, Array]:
    """The claim's rows C (m, n_K) and d (m,) in float64, none of them rescaled."""
    if not isinstance(claim.rows, ClauseRows):
        return claim_rows(claim)
    listed = [row for clause in claim.rows.clauses for row in clause]
    C = np.zeros((len(listed), claim.outputs))
    for at, row in enumerate(listed):
        C[at, list(row.units)] = list(map(float, row.coefficients))
    return C, np.array([float(row.constant) for row in listed])


def margin(network: Network, claim: Claim, points: Array) -> Array:
    """The least over clauses of the greatest of their rows at points (p, n_0), in float64."""
    C, d = plain_rows(claim)
    rows = as_numpy(network.forward(torch.from_numpy(points))) @ C.T + d
    return np.min([rows[:, list(clause)].max(1, initial=-np.inf) for clause in claim.clauses], axis=0)


def least(network: Network, claim: Claim) -> Least:
    """The least margin of a claim about a network in float64; l1 balls in few dimensions, l2 balls in two."""
    start, circle = _start(claim)
    C, d = plain_rows(claim)
    found = cells(network, start)
    outputs = as_numpy(_node_values(network, len(network.nodes) - 1, found))
    rows = outputs @ C.T + d
    pairs = [pair for clause in claim.clauses for pair in itertools.combinations(clause, 2)]
    if pairs:
        found = _cut(found, np.stack([rows[:, a] - rows[:, b] for a, b in pairs], 1))
    points = np.concatenate([cell.points for cell in found])
    if circle is not None:
        low, high = start.points.min(0), start.points.max(0)
        points = _on_disc(network, claim, found, *circle)
        points = points[((low <= points) & (points <= high)).all(1)]
    values = margin(network, claim, points)
    at = int(values.argmin())
    return Least(float(values[at]), points[at], float(values.max() - values[at]))


def _start(claim: Claim) -> tuple[Cell, tuple[Array, float] | None]:
    """The claim's region, or for an l2 ball its enclosing box, with center and radius."""
    region = claim.region
    if isinstance(region, RationalBox):
        return box_cell(np.array(list(map(float, region.lower))), np.array(list(map(float, region.upper)))), None
    if isinstance(region, BoxRegion):
        return box_cell(to_float(region.lower), to_float(region.upper)), None
    center, eps = to_float(region.center), float(region.eps)
    low, high = (-np.inf, np.inf) if region.clip is None else map(float, region.clip)
    cell = box_cell(np.maximum(center - eps, low), np.minimum(center + eps, high))
    if region.norm == "2":
        assert len(center) == 2
        return cell, (center, eps)
    if region.norm == "1":
        for signs in itertools.product((-1.0, 1.0), repeat=len(center)):
            parts, values = cell.split(eps - (cell.points - center) @ np.array(signs))
            cell = parts[int(np.argmax([v.sum() for v in values]))]
    return cell, None


def _on_disc(network: Network, claim: Claim, found: Sequence[Cell], center: Array, eps: float) -> Array:
    """Points of a disc, the least margin among them, if on every cell rows are linear and none overtakes another.

    Vertices inside, edges where they meet the circle, and for every row on every cell the disc's lowest point; points
    of other cells among these do no harm, for all of them are evaluated.
    """
    C, _ = plain_rows(claim)
    points = [center]
    for cell in found:
        points += [x for x in cell.points if np.linalg.norm(x - center) <= eps]
        for p, q in cell.edges():
            start, along = cell.points[p] - center, cell.points[q] - cell.points[p]
            for t in np.roots([along @ along, 2 * start @ along, start @ start - eps**2]):
                if np.isreal(t) and 0 <= t.real <= 1:
                    points.append(center + start + t.real * along)
        values = as_numpy(network.forward(torch.from_numpy(cell.points))) @ C.T
        slopes = np.linalg.lstsq(cell.points - cell.points.mean(0), values - values.mean(0), rcond=None)[0].T
        sizes = np.linalg.norm(slopes, axis=1)
        points += list(center - eps * slopes[sizes > 0] / sizes[sizes > 0, None])
    return np.array(points)
