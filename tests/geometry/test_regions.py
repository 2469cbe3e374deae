"""Linear regions: they tile the polygon, and on each the network is what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lpverify.errors import ResourceError, ShapeError
from lpverify.geometry import LinearRegion, Plane, area, contains, linear_regions, rectangle
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU
from tests.hand_made import valley
from tests.networks import NETWORKS, dense

SQUARE = rectangle(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def plane_of(network: Network, seed: int) -> Plane:
    r = np.random.default_rng(seed)
    return Plane(r.normal(size=network.input_size) / 2, r.normal(size=(2, network.input_size)))


def inside(polygon: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Random points of a convex polygon, its vertices among them."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(polygon)), size=5)
    return np.concatenate([polygon, weights @ polygon])


@pytest.mark.parametrize("name", NETWORKS)
def test_regions_tile_the_polygon_and_carry_the_network(name: str) -> None:
    network = NETWORKS[name](3).to(torch.float64)
    plane = plane_of(network, 5)
    regions = linear_regions(network, SQUARE, plane)
    assert len(regions) > 1 or name == "affine"
    assert sum(area(region.polygon) for region in regions) == pytest.approx(4, abs=1e-12)
    assert all(area(region.polygon) > 0 for region in regions)
    for number, region in enumerate(regions):
        points = inside(region.polygon, number)
        values = network.forward(torch.as_tensor(plane.inputs(points))).numpy()
        np.testing.assert_allclose(points @ region.A.T + region.b, values, atol=1e-10)
    # No point of the polygon is in the middle of two regions.
    points = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    assert (sum(contains(r.polygon, points, -1e-9).astype(int) for r in regions) <= 1).all()
    assert (sum(contains(r.polygon, points, 1e-9).astype(int) for r in regions) >= 1).all()


def corners(region: LinearRegion) -> list[tuple[float, float]]:
    return sorted(map(tuple, region.polygon.tolist()))


def test_vertices_by_hand() -> None:
    """relu(x) and relu(-x + y): cut at x = 0 and at x = y."""
    network = Network((
        Input((2,)),
        Affine((0,), (Dense(torch.tensor([[1.0, 0.0], [-1.0, 1.0]])),), torch.zeros(2), (2,)),
        ReLU(1),
        Affine((2,), (Dense(torch.tensor([[1.0, 0.0], [0.0, 1.0]])),), torch.tensor([0.0, 2.0]), (2,)),
    ))  # fmt: skip
    found = {tuple(region.A.ravel().tolist()): region for region in linear_regions(network, SQUARE)}
    assert {pattern: corners(region) for pattern, region in found.items()} == {
        (0, 0, 0, 0): [(-1, -1), (0, -1), (0, 0)],
        (1, 0, 0, 0): [(0, -1), (0, 0), (1, -1), (1, 1)],
        (0, 0, -1, 1): [(-1, -1), (-1, 1), (0, 0), (0, 1)],
        (1, 0, -1, 1): [(0, 0), (0, 1), (1, 1)],
    }
    assert all(region.b.tolist() == [0, 2] for region in found.values())


def test_lines_in_general_position_make_as_many_regions_as_they_must() -> None:
    """Of n lines of which all pairs meet inside: 1 + n + n (n - 1) / 2."""
    angles = np.arange(7) / 7 * np.pi
    weight = torch.as_tensor(np.column_stack([np.cos(angles), np.sin(angles)]))
    bias = torch.tensor([0.01, 0.013, -0.017, 0.019, -0.023, 0.029, -0.031], dtype=torch.float64)
    network = Network((
        Input((2,)), Affine((0,), (Dense(weight),), bias, (7,)), ReLU(1),
        Affine((2,), (Dense(torch.ones(1, 7, dtype=torch.float64)),), torch.zeros(1, dtype=torch.float64), (1,)),
    ))  # fmt: skip
    assert len(linear_regions(network, SQUARE)) == 1 + 7 + 21


def test_neurons_that_are_zero_on_one_line_cut_once() -> None:
    """x, -x, 3 x and 0.1 x - 1e-17: the last differs from the others by less than the tolerance."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [0.1, 0.0]], dtype=torch.float64)
    bias = torch.tensor([0.0, 0.0, 0.0, -1e-17], dtype=torch.float64)
    network = Network((Input((2,)), Affine((0,), (Dense(weight),), bias, (4,)), ReLU(1)))
    assert sorted(area(region.polygon) for region in linear_regions(network, SQUARE)) == [2.0, 2.0]


def test_a_slice_of_a_network_of_one_input() -> None:
    """|x - 1/2| along x = p_1 has two regions, whatever p_2."""
    network = valley(0.25)
    plane = Plane(np.zeros(1), np.array([[1.0], [0.0]]))
    regions = linear_regions(network, rectangle(np.zeros(2), np.ones(2)), plane)
    assert sorted(region.A[0, 0] for region in regions) == [-1.0, 1.0]
    assert [area(region.polygon) for region in regions] == [0.5, 0.5]


def test_what_cannot_be_enumerated_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected \(2, 3\) and \(3,\)"):
        linear_regions(dense(0, 3, 4, 2), SQUARE)
    with pytest.raises(ResourceError, match="more than 5 regions"):
        linear_regions(dense(0, 2, 20, 2), SQUARE, limit=5)
