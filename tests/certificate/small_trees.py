"""Split trees for tests: built by hand from nested splits, or by enumeration of all phases of a small chain."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from small_certificates import NO_ROWS

from lpverify.certificate.claim import Claim, ClauseRows, Inequality, Region, Rows
from lpverify.certificate.container import RawArray
from lpverify.certificate.proof import UNIT_SLOPE, Certificate, Leaf, Lemma
from lpverify.certificate.tree import Tree
from lpverify.linear import Dense
from lpverify.network import Affine, Network

Array = NDArray[np.float64]
NOTHING = -1


@dataclass(frozen=True)
class Row:
    """One row of a leaf: ``of`` a row's number, NOTHING, or weights (m,) of the claim's rows.

    ``phases`` are the multipliers of the neurons split on the path, from the root down; ``slopes`` in [0, 1] and
    ``duals`` are of the tree's columns, (K,).
    """

    of: int | Sequence[float]
    phases: Sequence[float] = ()
    slopes: Sequence[float] | None = None
    duals: Sequence[float] | None = None


@dataclass(frozen=True)
class Phase:
    """A split of neuron ``neuron`` of ReLU ``node``: z <= 0 on the left, z >= 0 on the right."""

    node: int
    neuron: int
    left: Node
    right: Node


@dataclass(frozen=True)
class Cut:
    """A split of input ``unit`` at ``point``: x <= point on the left."""

    unit: int
    point: float
    left: Node
    right: Node


Node = Phase | Cut | Sequence[Row]


@dataclass
class _Lists:
    kinds: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def tree(
    clauses: Sequence[int],
    root: Node,
    num_rows: int,
    bounds: str = "root",
    columns: Mapping[int, Sequence[int]] | None = None,
    dtype: str = "<f8",
) -> Tree:
    """The tree of nested splits ``root``, for a claim of ``num_rows`` rows."""
    found, pending = _Lists(), [root]
    while pending:
        node = pending.pop()
        if isinstance(node, Phase | Cut):
            found.kinds.append(1 if isinstance(node, Phase) else 2)
            found.places.append((node.node, node.neuron) if isinstance(node, Phase) else (0, node.unit))
            found.points.append(node.point if isinstance(node, Cut) else 0.0)
            pending += [node.right, node.left]
        else:
            found.kinds.append(0)
            found.counts.append(len(node))
            found.rows += node
    combos = [row.of for row in found.rows if not isinstance(row.of, int)]
    numbers = itertools.count(-2, -1)
    columns = columns or {}
    width = sum(map(len, columns.values()))
    slopes, slope_of = _tables([row.slopes for row in found.rows], width)
    duals, dual_of = _tables([row.duals for row in found.rows], width)
    return Tree(
        clauses=_integers(clauses),
        bounds=bounds,
        kinds=raw(found.kinds, "|u1"),
        places=_integers(np.array(found.places).reshape(-1, 2)),
        points=raw(found.points, "<f8"),
        counts=_integers(found.counts),
        rows=_integers([row.of if isinstance(row.of, int) else next(numbers) for row in found.rows]),
        combos=raw(np.reshape(combos, (len(combos), num_rows)), "<f8"),
        columns=tuple((node, _integers(neurons)) for node, neurons in columns.items()),
        slopes=raw(np.rint(slopes * UNIT_SLOPE), "<u2"),
        slope_of=_integers(slope_of),
        duals=raw(duals, dtype),
        dual_of=_integers(dual_of),
        phases=raw([v for row in found.rows for v in row.phases], dtype),
    )


def raw(values: Any, dtype: str) -> RawArray:
    """The values in this very type."""
    stored = np.array(values, dtype)
    return RawArray(dtype, stored.shape, stored.tobytes())


def _integers(values: Any) -> RawArray:
    return raw(values, "<i4")


def _tables(given: list[Sequence[float] | None], width: int) -> tuple[Array, list[int]]:
    stored = [values for values in given if values is not None]
    numbers = itertools.count()
    return np.array(stored, np.float64).reshape(len(stored), width), [-1 if v is None else next(numbers) for v in given]


def tree_certificate(
    sha256: str,
    region: Region,
    rows: Rows,
    *trees: Tree,
    rule: str = "crown",
    semantics: str = "real",
    leaf: Leaf = NO_ROWS,
    lemmas: tuple[Lemma, ...] = (),
) -> Certificate:
    return Certificate(sha256, semantics, rule, Claim(region, rows), leaf, lemmas, trees)


def clauses(outputs: int, *each: Sequence[tuple[Mapping[int, Any], Any, bool]]) -> ClauseRows:
    """Clauses of rows ({output: coefficient}, constant, strict); numbers as ``Fraction`` takes them."""
    made = [
        tuple(
            Inequality(tuple(sorted(row)), tuple(Fraction(row[u]) for u in sorted(row)), Fraction(constant), strict)
            for row, constant, strict in clause
        )
        for clause in each
    ]
    return ClauseRows(outputs, tuple(made))


# All phases of a chain of Dense layers


def layers(network: Network) -> list[tuple[Array, Array]]:
    """Weights and biases of a chain of Dense layers with ReLUs between them."""
    found = []
    for node in network.nodes:
        if isinstance(node, Affine):
            assert isinstance(node.maps[0], Dense)
            found.append((node.maps[0].weight.double().numpy(), node.bias.double().numpy()))
    return found


@dataclass(frozen=True)
class Cell:
    """A cell of constant phases: the best multipliers of its phase splits, and its least value, 1 if it is empty."""

    multipliers: list[float]
    empty: bool
    least: float
    point: Array | None


def cell(network: Network, lower: Array, upper: Array, c: Array, d: float, phases: Sequence[int]) -> Cell:
    """Minimise c.f(x) + d over the cell where ``phases`` (0 or 1 for every neuron) hold, by a linear program."""
    A, b, place = np.eye(len(lower)), np.zeros(len(lower)), 0
    G, h, sides = [], [], []
    for weight, bias in layers(network)[:-1]:
        A, b = weight @ A, weight @ b + bias
        active = np.array(phases[place : place + len(b)], np.float64)
        place += len(b)
        G.append(np.where(active, -1.0, 1.0)[:, None] * A)
        h.append(-np.where(active, -1.0, 1.0) * b)
        sides.append(active)
        A, b = A * active[:, None], b * active
    weight, bias = layers(network)[-1]
    form, constant = c @ weight @ A, float(c @ (weight @ b + bias) + d)
    limits, cut = np.vstack(G), np.concatenate(h)
    relaxed = linprog(
        [*np.zeros(len(lower)), 1.0],
        np.hstack([limits, -np.ones((len(cut), 1))]),
        cut,
        bounds=[*zip(lower, upper, strict=True), (None, None)],
    )
    empty = relaxed.fun > 1e-9
    solved = relaxed if empty else linprog(form, limits, cut, bounds=list(zip(lower, upper, strict=True)))
    if solved.status:  # as thin as the solver's tolerance
        return Cell([0.0] * len(cut), False, np.inf, None)
    mu, multipliers = -solved.ineqlin.marginals, []
    w, end = (np.zeros(len(c)) if empty else c) @ weight, len(cut)
    for (below, _), active in zip(reversed(layers(network)[:-1]), reversed(sides), strict=True):
        own = mu[end - len(active) : end]
        v = np.where(active, w - own, own)
        multipliers = [*v, *multipliers]
        w, end = v @ below, end - len(active)
    least = 1.0 if empty else solved.fun + constant
    return Cell([float(v) for v in multipliers], bool(empty), least, None if empty else solved.x)


def enumeration(
    network: Network, lower: Array, upper: Array, c: Array, d: float, row: int = 0
) -> tuple[Node, list[Cell]]:
    """The tree of all phases of all ReLU neurons for row ``row`` of a claim, which is c.f(x) + d, and its cells."""
    neurons = [(node, i) for node in network.relus for i in range(network.sizes[node])]
    cells = [cell(network, lower, upper, c, d, p) for p in itertools.product((0, 1), repeat=len(neurons))]
    nodes: list[Node] = [[Row(NOTHING if found.empty else row, found.multipliers)] for found in cells]
    for node, neuron in reversed(neurons):
        nodes = [Phase(node, neuron, nodes[k], nodes[k + 1]) for k in range(0, len(nodes), 2)]
    return nodes[0], cells


def bisection(lower: Array, upper: Array, depth: int, leaf: Sequence[Row]) -> Node:
    """The tree that halves the longest edge ``depth`` times, each leaf with the same rows."""
    if depth == 0:
        return leaf
    unit = int(np.argmax(upper - lower))
    middle = (lower[unit] + upper[unit]) / 2
    below, above = upper.copy(), lower.copy()
    below[unit] = above[unit] = middle
    return Cut(unit, float(middle), bisection(lower, below, depth - 1, leaf), bisection(above, upper, depth - 1, leaf))
