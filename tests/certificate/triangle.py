"""The triangle relaxation as one linear program, and its row duals: an oracle for stored multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from networks import Array
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from lpverify.network import Affine, Network, ReLU, as_numpy

Bounds = dict[int, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The program's optimum and, by ReLU node, the duals of its pre-activations: the multipliers v."""

    optimum: float
    duals: dict[int, Array]


def relaxation(
    network: Network, region: tuple[Array, Array], bounds: Bounds, row: Array, index: int = -1, cuts: bool = False
) -> Relaxed:
    """The least row . (value of node ``index``) of the relaxation over a box.

    Every node's value is a block of variables, and so is z of every ReLU, equal to the value that it reads:
    the dual of that equation is v. An unstable ReLU has h >= 0, h >= z, h <= u (z - l) / (u - l).

    Args:
        bounds: (l, u) of every ReLU's z; with ``cuts`` they also bound the variable z.
    """
    nodes = network.nodes[: index % len(network.nodes) + 1]
    sizes = network.sizes[: len(nodes)]
    extra = [size if isinstance(node, ReLU) else 0 for node, size in zip(nodes, sizes, strict=True)]
    starts = np.cumsum([0, *sizes, *extra])
    total = int(starts[-1])
    lower, upper = np.full(total, -np.inf), np.full(total, np.inf)
    lower[: sizes[0]], upper[: sizes[0]] = region

    def block(place: int, matrix: Any) -> csr_array:
        entries = csr_array(matrix).tocoo()
        columns = entries.col + starts[place]
        return csr_array((entries.data, (entries.row, columns)), shape=(entries.shape[0], total))

    def value(place: int) -> csr_array:
        return block(place, np.eye(starts[place + 1] - starts[place]))

    equal, right, less, limit, places, count = [], [], [], [], {}, 0
    for at, node in enumerate(nodes):
        if isinstance(node, Affine):
            rows = value(at)
            for source, linear in zip(node.inputs, node.maps, strict=True):
                rows = rows - block(source, linear.matrix())
            equal.append(rows)
            right.append(as_numpy(node.bias).astype(float))
        elif isinstance(node, ReLU):
            z, (low, high) = len(nodes) + at, bounds[at]
            equal.append(value(z) - value(node.input))
            right.append(np.zeros(sizes[at]))
            places[at] = slice(count, count + sizes[at])
            if cuts:
                lower[starts[z] : starts[z + 1]], upper[starts[z] : starts[z + 1]] = low, high
            active, unstable = low >= 0, (low < 0) & (high > 0)
            lower[starts[at] : starts[at + 1]] = np.where(active, -np.inf, 0.0)
            upper[starts[at] : starts[at + 1]] = np.where(active | unstable, np.inf, 0.0)
            slope = np.where(unstable, high / np.where(unstable, high - low, 1.0), 0.0)
            for matrix, constant, where in (
                (value(z) - value(at), np.zeros(sizes[at]), active | unstable),
                (value(at) - value(z), np.zeros(sizes[at]), active),
                (value(at) - block(z, np.diag(slope)), -slope * low, unstable),
            ):
                less.append(matrix[np.flatnonzero(where)])
                limit.append(constant[where])
        count = sum(len(r) for r in right)
    objective = np.zeros(total)
    objective[starts[len(nodes) - 1] : starts[len(nodes)]] = row
    inequalities = {"A_ub": vstack(less), "b_ub": np.concatenate(limit)} if less else {}
    equations = {"A_eq": vstack(equal), "b_eq": np.concatenate(right)} if equal else {}
    solved = linprog(objective, bounds=np.stack([lower, upper], axis=1), **inequalities, **equations)
    assert solved.status == 0, solved.message
    return Relaxed(float(solved.fun), {k: solved.eqlin.marginals[place] for k, place in places.items()})
