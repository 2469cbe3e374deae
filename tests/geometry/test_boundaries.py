"""Decision boundaries: every point lies in the part of the class that the network gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lpverify.files import write_npz
from lpverify.geometry import area, class_areas, contains, linear_regions, rectangle
from lpverify.geometry.arrays import read_arrays
from lpverify.geometry.boundaries import Boundaries, boundaries, window_about
from lpverify.linear import Dense
from lpverify.network import Affine, Input, Network, ReLU
from tests.networks import dense

LOW, HIGH = np.array([-1.0, -1.0]), np.array([1.0, 1.0])


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_points_lie_in_the_part_of_their_class(classes: int, seed: int) -> None:
    network = dense(seed, 2, 20, 20, classes).to(torch.float64)
    parts = class_areas(linear_regions(network, rectangle(LOW, HIGH)))
    points = np.random.default_rng(seed).uniform(-1, 1, (500, 2))
    outputs = network.forward(torch.as_tensor(points))
    near = outputs.topk(2).values.diff().abs()[:, 0] < 1e-9
    assert not near.any()
    for label, polygons in enumerate(parts.polygons):
        mine = np.any([contains(p, points) for p in polygons], axis=0) if polygons else np.zeros(500, bool)
        assert np.array_equal(mine, outputs.argmax(1).numpy() == label)
    totals = [sum(map(area, polygons)) for polygons in parts.polygons]
    assert sum(totals) == pytest.approx(4, abs=1e-12)
    outlines = parts.outlines()
    assert [edge.area for edge in outlines] == pytest.approx(totals, abs=1e-7)
    assert [sum(map(area, edge.rings())) for edge in outlines] == pytest.approx(totals, abs=1e-6)


def absolute(offset: float) -> Network:
    """Outputs |x| and ``offset``."""
    first = Affine((0,), (Dense(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])),), torch.zeros(2), (2,))
    last = Affine((2,), (Dense(torch.tensor([[1.0, 1.0], [0.0, 0.0]])),), torch.tensor([0.0, offset]), (2,))
    return Network((Input((2,)), first, ReLU(1), last))


def test_a_strip_by_hand() -> None:
    zero, one = class_areas(linear_regions(absolute(0.5), rectangle(LOW, HIGH))).outlines()
    assert (zero.area, one.area) == (2.0, 2.0)
    (ring,) = one.rings()
    assert sorted(map(tuple, ring.tolist())) == [(-0.5, -1), (-0.5, 1), (0.5, -1), (0.5, 1)]
    assert len(zero.rings()) == 2


def test_a_tie_all_over_goes_to_the_first_class() -> None:
    constant = Affine((0,), (Dense(torch.zeros(3, 2)),), torch.tensor([0.0, 1.0, 1.0]), (3,))
    parts = class_areas(linear_regions(Network((Input((2,)), constant)), rectangle(LOW, HIGH)))
    assert [len(polygons) for polygons in parts.polygons] == [0, 1, 0]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    x, y = np.array([[0.0, 0.0], [0.75, 0.0]]), np.array([1, 0])
    found = boundaries(absolute(0.5), (LOW, HIGH), x, y, eps=0.1, norm="inf", verdicts=["verified", "unknown"])
    assert found.areas.tolist() == [2.0, 2.0] and found.regions == 2
    write_npz(tmp_path / "b.npz", found.arrays())
    again = Boundaries.from_arrays(read_arrays(tmp_path / "b.npz"))
    assert (again.eps, again.norm, again.regions, again.verdicts.tolist()) == (0.1, "inf", 2, ["verified", "unknown"])
    for mine, theirs in zip(found.rings, again.rings, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_window_holds_every_ball() -> None:
    low, high = window_about(np.array([[0.0, 0.0], [1.0, 0.5]]), 0.1)
    np.testing.assert_allclose(low, [0.5 - 0.63, 0.25 - 0.63])
    np.testing.assert_allclose(high, [0.5 + 0.63, 0.25 + 0.63])
    low, high = window_about(np.zeros((1, 2)), 0.0)
    assert (low < high).all()
