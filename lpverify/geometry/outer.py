"""Polygons that enclose the outputs of a network over an input set, from the lower bounds of any bound method."""

from __future__ import annotations

import numpy as np
import torch

from lpverify.bounds.base import AbstractBoundMethod
from lpverify.errors import ShapeError
from lpverify.geometry.polygon import Array, Polygon, half_planes
from lpverify.network import Network
from lpverify.problem import Region, Specification

DIRECTIONS = 64


def directions(count: int) -> Array:
    """Unit vectors all around, beginning with those of the axes where count is a multiple of 4: (count, 2)."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.column_stack([np.cos(angles), np.sin(angles)])


def outer_polygon(
    network: Network, region: Region, method: AbstractBoundMethod, rows: Array, count: int = DIRECTIONS
) -> Polygon:
    """A polygon that contains rows . f(x) for all x of the region, as the method has it.

    Each direction c is a row of the claim c . rows . f(x) > 0, whose lower bound m says that the outputs lie in the
    half-plane c . y >= m; the polygon is the intersection. It is as sound as the method's bounds are in floating point.
    Between the directions it is looser than the method could be, by a factor of at most 1 / cos(pi / count).

    Args:
        region: of one example.
        rows: (2, n_K) which two combinations of the outputs are looked at; the unit vectors where there are two.
        count: how many directions, >= 3.

    Raises:
        ShapeError: if the region has several examples, or the rows do not fit.
    """
    if len(region.lower) != 1 or rows.shape != (2, network.output_size):
        raise ShapeError(
            f"outer_polygon: {len(region.lower)} examples, rows {rows.shape}; expected 1 and (2, {network.output_size})"
        )
    # Seen from an output inside of it, the polygon keeps its digits however small it is.
    inside = rows @ network.forward(region.box.center).detach().double().cpu().numpy()[0]
    normals = directions(count)
    C = torch.as_tensor((normals @ rows)[None]).to(region.lower)
    d = torch.as_tensor(-(normals @ inside)[None]).to(region.lower)
    margins = method.bound(network, region, Specification(C, d)).margins
    polygon: Polygon = half_planes(normals, margins.detach().double().cpu().numpy()[0]) + inside
    return polygon


def picked(outputs: tuple[int, int], size: int) -> Array:
    """The rows (2, size) that pick two outputs out of ``size``.

    Raises:
        ShapeError: if there are no such outputs, or they are the same.
    """
    if outputs[0] == outputs[1] or not all(0 <= output < size for output in outputs):
        raise ShapeError(f"outputs: {outputs[0]} and {outputs[1]} are not two different ones of 0..{size - 1}")
    rows = np.zeros((2, size))
    rows[[0, 1], list(outputs)] = 1.0
    return rows
