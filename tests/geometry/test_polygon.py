"""Convex polygons: what cutting, hulls and half-planes keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpverify.errors import DataError
from lpverify.geometry.outer import directions
from lpverify.geometry.polygon import area, clip, contains, half_planes, hull, rectangle, split

SQUARE = rectangle(np.zeros(2), np.ones(2))
numbers = st.floats(-1, 1, allow_subnormal=False)


def test_areas_by_hand() -> None:
    assert area(SQUARE) == 1.0 and area(SQUARE[::-1]) == -1.0
    assert area(SQUARE[:2]) == 0.0 and area(np.zeros((0, 2))) == 0.0
    assert area(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]])) == 3.0
    assert area(rectangle(np.array([1e6, 1e6]), np.array([1e6 + 1, 1e6 + 0.5]))) == 0.5


def test_a_cut_through_corners_makes_triangles_without_new_vertices() -> None:
    low, high = split(SQUARE, SQUARE @ [1.0, -1.0], 0.0)
    assert sorted(map(tuple, low.tolist())) == [(0, 0), (0, 1), (1, 1)]
    assert sorted(map(tuple, high.tolist())) == [(0, 0), (1, 0), (1, 1)]


def test_a_cut_within_the_slack_is_not_made() -> None:
    values = SQUARE[:, 0] - 1e-9
    low, high = split(SQUARE, values, 1e-8)
    assert low.shape == (0, 2) and np.array_equal(high, SQUARE)
    low, high = split(SQUARE, values, 0.0)
    assert area(low) == pytest.approx(1e-9, rel=1e-6) and area(low) + area(high) == pytest.approx(1, abs=1e-15)


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=8))
def test_parts_of_a_polygon_have_its_area_and_keep_its_orientation(cuts: list[tuple[float, float, float]]) -> None:
    parts = [SQUARE]
    for a, b, c in cuts:
        parts = [half for part in parts for half in split(part, part @ [a, b] + c, 1e-12) if len(half)]
    assert sum(map(area, parts)) == pytest.approx(1, abs=1e-13)
    assert min(map(area, parts)) >= -1e-15


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=20))
def test_a_hull_contains_its_points_and_turns_left(points: list[tuple[int, int]]) -> None:
    given_points = np.array(points, dtype=np.float64)
    found = hull(given_points)
    assert {tuple(p) for p in found.tolist()} <= {tuple(p) for p in given_points.tolist()}
    if len(found) > 2:
        assert contains(found, given_points).all()
        edges = np.roll(found, -1, axis=0) - found
        after = np.roll(edges, -1, axis=0)
        assert (edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0] > 0).all()


def test_half_planes_around_a_disc_are_the_regular_polygon() -> None:
    found = half_planes(directions(8), np.full(8, -1.0))
    assert len(found) == 8
    assert area(found) == pytest.approx(8 * np.tan(np.pi / 8), rel=1e-10)
    assert np.array_equal(contains(found, np.array([[0.0, 0.99], [0.0, 1.01]])), [True, False])


def test_half_planes_that_leave_an_unbounded_set_are_refused() -> None:
    with pytest.raises(DataError, match="unbounded"):
        half_planes(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.array([-1.0, -1.0, -1.0]))


def test_what_is_clipped_away_is_empty() -> None:
    assert clip(SQUARE, np.array([1.0, 0.0]), 2.0).shape == (0, 2)
    assert np.array_equal(clip(SQUARE, np.array([1.0, 0.0]), -2.0), SQUARE)
    assert clip(np.zeros((0, 2)), np.array([1.0, 0.0]), -2.0).shape == (0, 2)
