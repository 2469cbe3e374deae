"""The set of outputs over a ball: exact, inside every outer polygon, and what dense sampling shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lpverify.bounds import METHODS
from lpverify.errors import ShapeError
from lpverify.files import write_npz
from lpverify.geometry import area, contains, hull, linear_regions, outer_polygon, outline, rectangle
from lpverify.geometry.arrays import read_arrays
from lpverify.geometry.outer import picked
from lpverify.geometry.polytope import Polytope, polytope
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU
from lpverify.problem import Box, ball
from tests.networks import dense, samples

NAMES = ("interval", "dual", "crown", "alpha", "lp")
BOTH = np.eye(2)
# Outputs are of size 1; the LP's solver is exact to 1e-7 of that, and so are areas of polygons that are about as wide.
SLACK = 1e-6


def net(seed: int) -> Network:
    return dense(seed, 2, 20, 20, 2).to(torch.float64)


def square(eps: float) -> Box:
    return Box.linf(torch.tensor([[0.1, -0.2]], dtype=torch.float64), eps)


def measured(seed: int, eps: float) -> Polytope:
    return polytope(net(seed), square(eps), BOTH, {name: METHODS[name]() for name in NAMES})


def images(network: Network, box: Box) -> list[NDArray[np.float64]]:
    regions = linear_regions(network, rectangle(box.lower[0].numpy(), box.upper[0].numpy()))
    return [region.outputs() for region in regions]


@pytest.mark.parametrize("seed", range(4))
def test_sampled_outputs_lie_in_the_union_and_in_every_outer_polygon(seed: int) -> None:
    network, box = net(seed), square(0.3)
    outputs = network.forward(samples(box, 400, seed)[:, 0]).numpy()
    polygons = images(network, box)
    assert np.any([contains(p if area(p) > 0 else p[::-1], outputs, 1e-9) for p in polygons], axis=0).all()
    found = measured(seed, 0.3)
    assert found.regions == len(polygons) > 10
    for name, polygon in found.outer.items():
        assert contains(polygon, outputs, SLACK).all(), name
        assert contains(polygon, np.concatenate(found.rings), SLACK).all(), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.05, 0.4])
def test_no_polygon_is_smaller_than_that_of_the_lp_nor_that_one_than_the_hull(seed: int, eps: float) -> None:
    found = measured(seed, eps)
    areas = {name: area(polygon) for name, polygon in found.outer.items()}
    whole = area(hull(np.concatenate(found.rings)))
    assert found.area <= whole * (1 + 1e-9)
    assert whole <= areas["lp"] * (1 + SLACK)
    for name in NAMES:
        assert areas["lp"] <= areas[name] * (1 + SLACK), name
    assert areas["alpha"] <= areas["crown"] * (1 + SLACK)
    assert found.looseness("lp") == areas["lp"] / found.area


def test_the_exact_area_is_what_denser_and_denser_sampling_shows() -> None:
    """Cells of the output plane that a sample of a fine grid of inputs hits: from 2 % to half a percent off."""
    network, box = net(0), square(0.5)
    exact = outline(images(network, box)).area
    errors = []
    for side, cells in ((500, 60), (2000, 240)):
        steps = (np.arange(side) + 0.5) / side
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        lower, upper = box.lower[0].numpy(), box.upper[0].numpy()
        outputs = network.forward(torch.as_tensor(lower + (upper - lower) * grid)).numpy()
        low, high = outputs.min(axis=0), outputs.max(axis=0)
        place = np.minimum(((outputs - low) / (high - low) * cells).astype(int), cells - 1)
        hits = np.zeros((cells, cells), dtype=bool)
        hits[place[:, 0], place[:, 1]] = True
        # Cells at the outline count in full, though half of one is covered on average.
        full = hits[1:-1, 1:-1] & hits[:-2, 1:-1] & hits[2:, 1:-1] & hits[1:-1, :-2] & hits[1:-1, 2:]
        covered = (hits.sum() + full.sum()) / 2 / cells**2
        errors.append(abs(covered * float(np.prod(high - low)) / exact - 1))
    assert errors[1] < 0.01 and errors[1] < errors[0]


def test_folds_count_once() -> None:
    """(|x|, y) over a square about 0 is half of it, twice."""
    first = Affine((0,), (Dense(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])),), torch.tensor([0.0, 0, 1]), (3,))
    last = Affine((2,), (Dense(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])),), torch.tensor([0.0, -1.0]), (2,))
    network = Network((Input((2,)), first, ReLU(1), last)).to(torch.float64)
    found = polytope(network, Box.linf(torch.zeros(1, 2, dtype=torch.float64), 0.5), BOTH, {})
    assert found.regions == 2 and found.area == pytest.approx(0.5, abs=1e-12)
    (ring,) = found.rings
    assert sorted(map(tuple, ring.round(9).tolist())) == [(0, -0.5), (0, 0.5), (0.5, -0.5), (0.5, 0.5)]


def test_an_affine_network_has_its_image_and_every_method_finds_it() -> None:
    """Tight but for the directions between the 64: a factor of at most 1 / cos(pi / 64) in width."""
    network = dense(2, 2, 2).to(torch.float64)
    found = polytope(network, square(0.2), BOTH, {name: METHODS[name]() for name in NAMES})
    assert found.regions == 1
    for name in NAMES:
        assert 1 - 1e-9 <= found.looseness(name) < 1.05, name


def test_a_thin_set_has_corners_all_around() -> None:
    """Of a set that is 10^4 times as long as wide, the polygon's area is off by as little as of a round one."""
    rows = np.array([[1.0, 1.0], [1.0, 1.0001]])
    thin = polytope(net(1), square(0.05), rows, {"lp": METHODS["lp"]()})
    wide = polytope(net(1), square(0.05), BOTH, {"lp": METHODS["lp"]()})
    assert thin.area == pytest.approx(wide.area * 1e-4, rel=1e-5)
    assert thin.looseness("lp") == pytest.approx(wide.looseness("lp"), rel=0.05)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_with_more_inputs_points_are_found_and_lie_in_every_polygon(norm: str) -> None:
    network = dense(0, 6, 20, 20, 4).to(torch.float64)
    region = ball(torch.zeros(1, 6, dtype=torch.float64), 0.2, norm)
    found = polytope(network, region, picked((1, 3), 4), {n: METHODS[n]() for n in ("dual", "crown")}, samples=300)
    assert not found.rings and np.isnan(found.area)
    assert found.points.shape == (300, 2) and found.attacked.shape == (64, 2)
    for name, polygon in found.outer.items():
        assert contains(polygon, np.concatenate([found.points, found.attacked]), 1e-9).all(), name
    assert area(hull(found.attacked)) > area(hull(found.points))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = measured(0, 0.1)
    write_npz(tmp_path / "a.npz", {f"case/{name}": array for name, array in found.arrays().items()})
    again = Polytope.from_arrays(read_arrays(tmp_path / "a.npz", "case/"))
    assert again.area == found.area and again.regions == found.regions and list(again.outer) == list(found.outer)
    assert all(np.array_equal(a, b) for a, b in zip(again.rings, found.rings, strict=True))
    assert np.array_equal(again.outer["lp"], found.outer["lp"])


def test_outputs_that_are_not_there_are_refused() -> None:
    for outputs in ((0, 0), (0, 4), (-1, 2)):
        with pytest.raises(ShapeError, match=r"two different ones of 0\.\.3"):
            picked(outputs, 4)
    with pytest.raises(ShapeError, match="2 examples"):
        outer_polygon(net(0), Box.linf(torch.zeros(2, 2), 0.1), METHODS["crown"](), BOTH)
