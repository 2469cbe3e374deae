"""Encodings: Network + input set + pre-activation bounds -> Program, and the way back.

For a neuron with pre-activation z in [l, u], l < 0 < u, the value is written as two columns, h = relu(z) and
p = relu(-z), so that z = h - p:

    h - p - (affine expression of z) = constant         the row "z"; its dual is the certificate's multiplier v
    0 <= h <= u,  0 <= p <= -l
    -l h + u p <= -l u                                   the triangle relaxation, row "t"
    h <= u delta,  p <= -l (1 - delta),  delta in {0,1}   the exact value, rows "a" and "b"

The row "t" is h <= u (z - l) / (u - l); with h >= 0 and p = h - z >= 0 these are the three inequalities of the
triangle (Wong & Kolter 2018, eq. 4; Wong 2020, eq. 3.4-3.6). The rows "a" and "b" are the big-M encoding of Tjeng
et al. 2019, eq. 4-7, with separate bounds: h <= u delta and h <= z - l (1 - delta). Relaxing delta to [0, 1] gives
the triangle again.

Stable neurons are not encoded: an inactive one is 0, an active one is the affine expression of its z, substituted
where it is read. Only where that would fill the matrix (few active neurons, each with a long expression, before
many unstable ones, as in deep dense networks) they get columns of their own, tied to their expressions by rows "z".

Input sets: a box is the bounds of the columns x. An l1 ball is x = center + a - b with a, b >= 0 and
sum (a + b) <= eps. An l2 ball is a second-order cone on x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lpverify.errors import ProgramError, UsageError
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import Ball, LayerBounds, Region
from lpverify.program import Array, Cone, Program

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Expression:
    """Affine expressions of the columns, one a unit: matrix (n_k, columns) and constant (n_k,)."""

    matrix: sparse.csr_array
    constant: Array

    def wide(self, columns: int) -> sparse.csr_array:
        """The matrix with as many columns as the program has by now."""
        matrix = self.matrix.copy()
        matrix.resize((matrix.shape[0], columns))
        return matrix

    def at(self, x: Array) -> Array:
        """The values (n_k,) at a point of the program."""
        return np.asarray(self.matrix @ x[: self.matrix.shape[1]] + self.constant)


@dataclass(frozen=True, eq=False)
class Neurons:
    """The encoded neurons of one ReLU: units (k,), their first columns h, p and delta, and their first row "z"."""

    units: Index
    first_column: int
    first_row: int


class Encoder:
    """A program that grows node by node, so that layers can be bounded by the layers before them.

    Args:
        network: any graph of Affine and ReLU nodes.
        region: the input set of one example (batch size 1).
        milp: encode ReLUs exactly, by binaries, instead of relaxing them.
    """

    def __init__(self, network: Network, region: Region, *, milp: bool = False) -> None:
        if region.lower.shape[0] != 1:
            raise UsageError(f"encode: the region has {region.lower.shape[0]} examples; give one")
        self.network, self.milp = network, milp
        self.expressions: dict[int, Expression] = {}
        self.neurons: dict[int, Neurons] = {}
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._integer: list[NDArray[np.bool_]] = []
        self._rows: list[sparse.csr_array] = []
        self._row_lower: list[Array] = []
        self._row_upper: list[Array] = []
        self._column_names: list[str] = []
        self._row_names: list[str] = []
        self._columns = 0
        self._cone: Cone | None = None
        self._input(region)

    def _input(self, region: Region) -> None:
        lower, upper = _numpy(region.lower[0]), _numpy(region.upper[0])
        n = len(lower)
        eye = sparse.eye_array(n, format="csr")
        if isinstance(region, Ball) and region.norm == "1":
            center, eps = _numpy(region.point[0]), float(region.eps[0])
            up = np.maximum(lower - center, 0), np.maximum(upper - center, 0)
            down = np.maximum(center - upper, 0), np.maximum(center - lower, 0)
            self._add_columns(*up, [f"a_{i}" for i in range(n)])
            self._add_columns(*down, [f"b_{i}" for i in range(n)])
            self._add_rows(sparse.csr_array(np.ones((1, 2 * n))), -np.inf, np.array([eps]), ["ball"])
            self.expressions[0] = Expression(sparse.csr_array(sparse.hstack([eye, -eye])), center)
            return
        self._add_columns(lower, upper, [f"x_{i}" for i in range(n)])
        if isinstance(region, Ball):
            self._cone = Cone(np.arange(n), _numpy(region.point[0]), float(region.eps[0]))
        self.expressions[0] = Expression(eye, np.zeros(n))

    def reach(self, index: int) -> Expression:
        """The expressions of node ``index``; every ReLU before it must have been added."""
        for k in range(index + 1):
            node = self.network.nodes[k]
            if k not in self.expressions and isinstance(node, Affine):
                self.expressions[k] = self._affine(k, node)
        return self.expressions[index]

    def _affine(self, index: int, node: Affine) -> Expression:
        constant = _numpy(node.bias)
        matrix = sparse.csr_array((len(constant), self._columns))
        for source, linear in zip(node.inputs, self.network.matrices(index), strict=True):
            read = self.expressions[source]
            matrix = matrix + linear @ read.wide(self._columns)
            constant = constant + linear @ read.constant
        return Expression(matrix, constant)

    def relu(self, index: int, lower: Array, upper: Array) -> None:
        """Add ReLU node ``index`` with bounds (n_k,) of its pre-activations.

        Raises:
            ProgramError: for a bound that is NaN or infinite: it must not pass for that of a stable neuron.
        """
        bad = np.flatnonzero(~np.isfinite(lower) | ~np.isfinite(upper))
        if len(bad):
            low, high = float(lower[bad[0]]), float(upper[bad[0]])
            raise ProgramError(f"encode: node {index}, unit {bad[0]} has bounds {low!r} and {high!r}; give finite ones")
        (source,) = self.network.sources(index)
        units = np.flatnonzero((lower < 0) & (upper > 0))
        active = np.flatnonzero(lower >= 0)
        z = self._named(index, self.reach(source), lower, upper, active, len(units))
        l, u = lower[units], upper[units]  # noqa: E741
        first_row, first, k = self._row_count, self._columns, len(units)
        self._add_columns(np.zeros(k), u, [f"h_{index}_{i}" for i in units])
        self._add_columns(np.zeros(k), -l, [f"p_{index}_{i}" for i in units])
        link = self._block(k, (first, np.ones(k)), (first + k, -np.ones(k))) - z.wide(self._columns)[units]
        self._add_rows(link, z.constant[units], z.constant[units], [f"z_{index}_{i}" for i in units])
        if self.milp:
            self._add_columns(np.zeros(k), np.ones(k), [f"d_{index}_{i}" for i in units], integer=True)
            above = self._block(k, (first, np.ones(k)), (first + 2 * k, -u))
            below = self._block(k, (first + k, np.ones(k)), (first + 2 * k, -l))
            self._add_rows(above, -np.inf, np.zeros(k), [f"a_{index}_{i}" for i in units])
            self._add_rows(below, -np.inf, -l, [f"b_{index}_{i}" for i in units])
        else:
            cut = self._block(k, (first, -l / (u - l)), (first + k, u / (u - l)))
            self._add_rows(cut, -np.inf, -l * u / (u - l), [f"t_{index}_{i}" for i in units])
        self.neurons[index] = Neurons(units, first, first_row)
        self.expressions[index] = self._values(index, z, units, active, first)

    def _values(self, index: int, z: Expression, units: Index, active: Index, first: int) -> Expression:
        """The ReLU's values: h where unstable, z where active, else 0."""
        n, passed = len(z.constant), np.zeros(len(z.constant))
        passed[active] = 1.0
        matrix = sparse.diags_array(passed, format="csr") @ z.wide(self._columns)
        own = (np.ones(len(units)), (units, first + np.arange(len(units))))
        matrix = matrix + sparse.csr_array(own, shape=(n, self._columns))
        return Expression(sparse.csr_array(matrix), z.constant * passed)

    def _named(self, index: int, z: Expression, lower: Array, upper: Array, active: Index, unstable: int) -> Expression:
        """The expressions z with columns of their own for active units, where that leaves fewer entries.

        Keeping them costs the entries of their rows; it shortens each later row from their support to their number.
        As many unstable neurons are expected in every later ReLU as in this one.
        """
        entries = int(np.diff(z.matrix.indptr)[active].sum())
        later = unstable * sum(k > index for k in self.network.relus)
        if not len(active) or entries >= (entries / len(active) - len(active)) * later:
            return z
        start, k = self._columns, len(active)
        # Wider than the bounds: they are to keep every bound finite, not to cut anything off.
        width = upper[active] - lower[active]
        self._add_columns(lower[active] - width, upper[active] + width, [f"h_{index}_{i}" for i in active])
        tied = self._block(k, (start, np.ones(k))) - z.wide(self._columns)[active]
        self._add_rows(tied, z.constant[active], z.constant[active], [f"z_{index}_{i}" for i in active])
        others, constant = np.ones(len(z.constant)), z.constant.copy()
        others[active], constant[active] = 0.0, 0.0
        matrix = sparse.diags_array(others, format="csr") @ z.wide(self._columns)
        own = (np.ones(k), (active, start + np.arange(k)))
        return Expression(sparse.csr_array(matrix + sparse.csr_array(own, shape=matrix.shape)), constant)

    def _block(self, k: int, *parts: tuple[int, Array]) -> sparse.csr_array:
        """k rows with entries on the diagonals that start at the given columns."""
        at = np.arange(k)
        entries = np.concatenate([values for _, values in parts])
        places = np.tile(at, len(parts)), np.concatenate([at + start for start, _ in parts])
        return sparse.csr_array((entries, places), shape=(k, self._columns))

    def _add_columns(self, lower: Array, upper: Array, names: Iterable[str], *, integer: bool = False) -> None:
        self._lower.append(lower)
        self._upper.append(upper)
        self._integer.append(np.full(len(lower), integer))
        self._column_names.extend(names)
        self._columns += len(lower)

    def _add_rows(self, rows: sparse.csr_array, lower: Any, upper: Array, names: Iterable[str]) -> None:
        self._rows.append(sparse.csr_array(rows))
        self._row_lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), upper.shape))
        self._row_upper.append(upper)
        self._row_names.extend(names)

    @property
    def _row_count(self) -> int:
        return sum(len(u) for u in self._row_upper)

    def program(self) -> Program:
        """The program so far, with objective 0."""
        rows = []
        for block in self._rows:
            wide = block.copy()
            wide.resize((block.shape[0], self._columns))
            rows.append(wide)
        A = sparse.vstack(rows, format="csr") if rows else sparse.csr_array((0, self._columns))
        return Program(
            objective=np.zeros(self._columns),
            A=sparse.csr_array(A),
            row_lower=np.concatenate([*self._row_lower, np.zeros(0)]),
            row_upper=np.concatenate([*self._row_upper, np.zeros(0)]),
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
            integer=np.concatenate(self._integer),
            cone=self._cone,
            column_names=tuple(self._column_names),
            row_names=tuple(self._row_names),
        )

    def unit(self, index: int, unit: int) -> tuple[Array, float]:
        """One unit of node ``index`` as an objective (columns,) and its offset."""
        expression = self.reach(index)
        matrix, objective = expression.matrix, np.zeros(self._columns)
        place = slice(matrix.indptr[unit], matrix.indptr[unit + 1])
        np.add.at(objective, matrix.indices[place], matrix.data[place])
        return objective, float(expression.constant[unit])

    def rows(self, index: int, weights: Any) -> tuple[Array, Array]:
        """Rows (m, n_k) times the value of node ``index`` as objectives (m, columns) and offsets (m,)."""
        expression = self.reach(index)
        weights = sparse.csr_array(weights)
        return (weights @ expression.wide(self._columns)).toarray(), np.asarray(weights @ expression.constant)

    def values(self, x: Array) -> list[Array]:
        """Every node's value at a point x of the program: what the relaxation says they are."""
        return [self.expressions[k].at(x) for k in sorted(self.expressions)]

    def multipliers(self, row_duals: Array) -> dict[int, Array]:
        """The certificate's multipliers v (n_k,) by ReLU node, from the duals of the rows; 0 at stable neurons."""
        found = {}
        for index, neurons in self.neurons.items():
            v = np.zeros(self.network.sizes[index])
            v[neurons.units] = row_duals[neurons.first_row : neurons.first_row + len(neurons.units)]
            found[index] = v
        return found


def encode(network: Network, region: Region, layers: dict[int, LayerBounds], *, milp: bool = False) -> Encoder:
    """Encode a whole network with known pre-activation bounds.

    Args:
        network: any graph of Affine and ReLU nodes.
        region: the input set of one example.
        layers: bounds (1, n_k) of the pre-activations of every ReLU node.
        milp: encode ReLUs exactly instead of relaxing them.
    """
    encoder = Encoder(network, region, milp=milp)
    for index in network.relus:
        encoder.relu(index, _numpy(layers[index].lower[0]), _numpy(layers[index].upper[0]))
    encoder.reach(len(network.nodes) - 1)
    return encoder


def _numpy(values: Any) -> Array:
    return as_numpy(values).astype(np.float64)
