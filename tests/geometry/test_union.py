"""Outlines of unions, against areas by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lpverify.geometry import area, contains, hull, outline, rectangle


def box(a: float, b: float, c: float, d: float) -> NDArray[np.float64]:
    return rectangle(np.array([a, b]), np.array([c, d]))


def rings_area(polygons: list[NDArray[np.float64]]) -> float:
    return sum(map(area, outline(polygons).rings()))


def test_two_squares_that_overlap() -> None:
    found = outline([box(0, 0, 2, 2), box(1, 1, 3, 3)])
    assert found.area == pytest.approx(7, abs=1e-12)
    (ring,) = found.rings()
    assert sorted(map(tuple, ring.round(9).tolist())) == [
        (0, 0), (0, 2), (1, 2), (1, 3), (2, 0), (2, 1), (3, 1), (3, 3)
    ]  # fmt: skip


def test_squares_that_share_an_edge_are_one_rectangle() -> None:
    found = outline([box(0, 0, 1, 1), box(1, 0, 2, 1)])
    assert found.area == pytest.approx(2, abs=1e-12)
    assert len(found.rings()) == 1 and len(found.rings()[0]) == 4


def test_a_part_of_an_edge_in_common() -> None:
    assert outline([box(0, 0, 1, 3), box(1, 1, 2, 2)]).area == pytest.approx(4, abs=1e-12)


def test_the_same_square_counts_once_and_so_does_one_inside() -> None:
    assert outline([box(0, 0, 1, 1)] * 3).area == pytest.approx(1, abs=1e-12)
    assert outline([box(0, 0, 1, 1), box(0.2, 0.2, 0.4, 0.4)]).area == pytest.approx(1, abs=1e-12)
    # Edges that lie on each other, both with the inside on the left: a fold.
    assert outline([box(0, 0, 1, 1), box(0, 0, 0.5, 1)]).area == pytest.approx(1, abs=1e-12)


def test_a_frame_has_a_hole() -> None:
    frame = [box(0, 0, 3, 1), box(0, 2, 3, 3), box(0, 0, 1, 3), box(2, 0, 3, 3)]
    found = outline(frame)
    assert found.area == pytest.approx(8, abs=1e-12)
    assert sorted(area(ring) for ring in found.rings()) == pytest.approx([-1, 9], abs=1e-12)


def test_orientation_does_not_matter_and_what_has_no_area_is_left_out() -> None:
    flat = np.array([[0.0, 0.0], [5.0, 5.0], [2.0, 2.0]])
    assert outline([box(0, 0, 1, 1)[::-1], box(2, 0, 3, 1), flat]).area == pytest.approx(2, abs=1e-12)
    assert outline([flat]).area == 0 and outline([]).area == 0 and outline([]).rings() == []


@pytest.mark.parametrize("seed", range(10))
def test_random_triangles_cover_what_counting_says(seed: int) -> None:
    r = np.random.default_rng(seed)
    polygons = [hull(r.uniform(0, 1, (1, 2)) + r.uniform(-0.2, 0.2, (5, 2))) for _ in range(30)]
    side = 700
    steps = (np.arange(side) + 0.5) / side * 1.4 - 0.2
    points = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    covered = np.any([contains(polygon, points) for polygon in polygons], axis=0)
    found = outline(polygons)
    # A cell is counted wrongly only where the outline crosses it.
    length = np.hypot(*(found.segments[:, 1] - found.segments[:, 0]).T).sum()
    assert abs(covered.mean() * 1.4**2 - found.area) < 0.1 * length * 1.4 / side
    assert rings_area(polygons) == pytest.approx(found.area, abs=1e-7)


def test_scale_and_place_do_not_matter() -> None:
    r = np.random.default_rng(0)
    polygons = [hull(r.uniform(0, 1, (5, 2))) for _ in range(8)]
    found = outline(polygons).area
    assert outline([1e-6 * p + 0.25 for p in polygons]).area == pytest.approx(1e-12 * found, rel=1e-6)
    assert outline([1e6 * p for p in polygons]).area == pytest.approx(1e12 * found, rel=1e-9)
