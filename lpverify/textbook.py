"""The text-book formulation in cvxpy: one variable a layer and the three inequalities of the triangle.

For reading, and as the reference that ``encode`` is tested and timed against; no verdict comes from it. With z_0 the
input, zhat = W z + b before a ReLU and z behind it, bounds l <= zhat <= u (Wong 2020, eq. 3.4-3.6):

    minimise    c . (output) + d
    subject to  z_0 in the input set
                zhat = W z + b                                   for every affine layer
                z = 0                                            where u <= 0
                z = zhat                                         where l >= 0
                z >= 0,  z >= zhat,  (u - l) z <= u (zhat - l)   where l < 0 < u

The exact version (Tjeng et al. 2019, eq. 4-7) has a binary delta for every neuron with l < 0 < u, and instead of the
last inequality z <= u delta and z <= zhat - l (1 - delta).
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine.binary_operators import multiply
from cvxpy.atoms.norm import norm
from numpy.typing import NDArray

from lpverify.errors import ShapeError, UsageError
from lpverify.network import Affine, Network, as_numpy
from lpverify.problem import Ball, LayerBounds, Region

Array = NDArray[np.float64]


def textbook(
    network: Network,
    region: Region,
    layers: dict[int, LayerBounds],
    c: Array,
    d: float = 0.0,
    *,
    milp: bool = False,
) -> tuple[cp.Problem, list[cp.Variable]]:
    """The least c.f(x) + d over the region, relaxed by triangles or exact by binaries, as a cvxpy problem.

    Args:
        network: a chain: every node reads the one before it and nothing else.
        region: the input set of one example; l2 balls need a solver for second-order cones.
        layers: bounds (1, n_k) of the pre-activations of every ReLU node.
        c: (n_K,) a row of the claim.
        milp: exact instead of relaxed.

    Returns:
        The problem, not yet solved, and the variable of each node's value (n_k,). After a time limit
        ``problem.value`` is a value at a point, not a bound.

    Raises:
        UsageError: for a graph that is no chain.
        ShapeError: for more than one example, or c of another shape.
    """
    _check(network, region, c)
    z = [cp.Variable(size) for size in network.sizes]
    constraints = [z[0] >= _flat(region.lower), z[0] <= _flat(region.upper)]
    if isinstance(region, Ball):
        constraints += [norm(z[0] - _flat(region.point), int(region.norm)) <= float(region.eps)]
    for k, node in enumerate(network.nodes[1:], start=1):
        if isinstance(node, Affine):
            constraints += [z[k] == node.maps[0].matrix() @ z[k - 1] + _flat(node.bias)]
            continue
        lower, upper = _flat(layers[k].lower), _flat(layers[k].upper)
        active, inactive, unstable = lower >= 0, (upper <= 0) & (lower < 0), (lower < 0) & (upper > 0)
        if inactive.any():
            constraints += [z[k][inactive] == 0]
        if active.any():
            constraints += [z[k][active] == z[k - 1][active]]
        if unstable.any():
            post, pre, l, u = z[k][unstable], z[k - 1][unstable], lower[unstable], upper[unstable]  # noqa: E741
            constraints += [post >= 0, post >= pre]
            if milp:
                delta = cp.Variable(len(l), boolean=True)
                constraints += [post <= multiply(u, delta), post <= pre - multiply(l, 1 - delta)]
            else:
                constraints += [multiply(u - l, post) <= multiply(u, pre - l)]
    return cp.Problem(cp.Minimize(c @ z[-1] + d), constraints), z


def _check(network: Network, region: Region, c: Array) -> None:
    for k in range(1, len(network.nodes)):
        sources = network.sources(k)
        if sources != (k - 1,):
            read = "no node" if not sources else "nodes " + ", ".join(map(str, sources))
            raise UsageError(f"textbook: node {k} reads {read}, not node {k - 1} alone; encode takes such graphs")
    if region.lower.shape[0] != 1:
        raise ShapeError(f"textbook: the region has {region.lower.shape[0]} examples, expected 1")
    if c.shape != (network.output_size,):
        raise ShapeError(f"textbook: c has shape {c.shape}, expected ({network.output_size},)")


def _flat(values: Any) -> Array:
    return as_numpy(values).astype(np.float64).ravel()
