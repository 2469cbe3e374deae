"""All linear regions of a ReLU network over a convex polygon of its input plane.

Node by node, a polygon on which everything so far is affine is cut along the lines where a neuron is 0. What is left at
the end are convex polygons with an affine map each, which together are the polygon: an enumeration, not a sample.

Tolerance. Everything is float64. A neuron that is nowhere on one side of 0 by more than ``TOLERANCE`` times the size
of the terms in its affine form counts as being on the other side: cuts that would leave a thinner sliver, mostly the
rounding of a cut made already, are not made. Such a region's map is wrong by no more than that on the sliver. The areas
of the regions add up to the polygon's to rounding, for both parts of a cut get the same vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lpverify.errors import ResourceError, ShapeError
from lpverify.geometry.polygon import Array, Polygon, split
from lpverify.network import Affine, Network, ReLU, as_numpy

TOLERANCE = 1e-12
LIMIT = 500_000


@dataclass(frozen=True, eq=False)
class Plane:
    """Two directions of the input space: a point p of the plane is the input origin + p axes.

    Attributes:
        origin: (n_0,).
        axes: (2, n_0).
    """

    origin: Array
    axes: Array

    def inputs(self, points: Array) -> Array:
        """The inputs (N, n_0) of points (N, 2)."""
        return self.origin + points @ self.axes


@dataclass(frozen=True, eq=False)
class LinearRegion:
    """A convex polygon on which the network is affine.

    Attributes:
        polygon: (k, 2), in the coordinates of the plane.
        A, b: the outputs at p are A p + b: (n_K, 2), (n_K,).
    """

    polygon: Polygon
    A: Array
    b: Array

    def outputs(self) -> Array:
        """The outputs at the vertices, (k, n_K), in their order."""
        return self.polygon @ self.A.T + self.b


# A node's value as an affine form of the plane's coordinates: columns of p_1, p_2 and 1.
Form = Array


def linear_regions(
    network: Network, polygon: Polygon, plane: Plane | None = None, *, limit: int = LIMIT
) -> list[LinearRegion]:
    """The linear regions of a network over a convex polygon (k, 2).

    Args:
        plane: what the polygon's coordinates are; None for a network of two inputs.
        limit: how many regions there may be.

    Raises:
        ShapeError: if the network has other inputs than the plane.
        ResourceError: if there are more regions than ``limit``.
    """
    plane = Plane(np.zeros(2), np.eye(2)) if plane is None else plane
    if plane.axes.shape != (2, network.input_size) or plane.origin.shape != (network.input_size,):
        raise ShapeError(
            f"plane: axes {plane.axes.shape}, origin {plane.origin.shape}; expected (2, {network.input_size}) and "
            f"({network.input_size},): only in two directions can regions be enumerated"
        )
    exact = network.detach().to(torch.float64, "cpu")
    start: tuple[Form, ...] = (np.column_stack([plane.axes.T, plane.origin]),)
    found: list[LinearRegion] = []
    pending: list[tuple[tuple[Form, ...], NDArray[np.bool_] | None, Polygon]] = [(start, None, polygon)]
    while pending:
        forms, active, part = pending.pop()
        if active is not None:
            node = exact.nodes[len(forms)]
            assert isinstance(node, ReLU)
            forms = (*forms, forms[node.input] * active[:, None])
        while len(forms) < len(exact.nodes) and isinstance(exact.nodes[len(forms)], Affine):
            forms = (*forms, _affine(exact, len(forms), forms))
        if len(forms) == len(exact.nodes):
            found.append(LinearRegion(part, forms[-1][:, :2].copy(), forms[-1][:, 2].copy()))
        else:
            node = exact.nodes[len(forms)]
            assert isinstance(node, ReLU)
            pending.extend((forms, side, piece) for side, piece in _cells(forms[node.input], part))
        if len(found) + len(pending) > limit:
            raise ResourceError(f"linear_regions: more than {limit} regions; give a smaller polygon or a larger limit")
    return found


def _affine(network: Network, index: int, forms: tuple[Form, ...]) -> Form:
    """The form of an affine node."""
    node = network.nodes[index]
    assert isinstance(node, Affine)
    form = np.zeros((len(node.bias), 3))
    form[:, 2] = as_numpy(node.bias)
    for source, matrix in zip(node.inputs, network.matrices(index), strict=True):
        form += matrix @ forms[source]
    return form


def _cells(form: Form, polygon: Polygon) -> list[tuple[NDArray[np.bool_], Polygon]]:
    """The parts of a polygon on which every neuron of a ReLU stays on one side of 0, and which are active there."""
    found = []
    pending = [(np.zeros(len(form), dtype=bool), np.arange(len(form)), polygon)]
    while pending:
        active, rest, part = pending.pop()
        values = form[rest, :2] @ part.T + form[rest, 2:]
        slack = TOLERANCE * (np.abs(form[rest, :2]) @ np.abs(part).max(axis=0) + np.abs(form[rest, 2]))
        above, below = values.max(axis=1) > slack, values.min(axis=1) < -slack
        active[rest[above & ~below]] = True
        crossing = (above & below).nonzero()[0]
        if not len(crossing):
            found.append((active, part))
            continue
        first = crossing[0]
        low, high = split(part, values[first], float(slack[first]))
        on = active.copy()
        on[rest[first]] = True
        pending += [(active, rest[crossing[1:]], low), (on, rest[crossing[1:]], high)]
    return found
