"""Equilibration: the same program in other units, exactly, and in units that solvers can bear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import LPS, MIPS, boxed_lp, in_units
from random_programs import EDGES, INF, program, random_program
from scipy import sparse

from lpverify.backends.base import dual_bound
from lpverify.backends.scaling import Scaling, equilibrate
from lpverify.program import Cone, Program

PROGRAMS = {
    **EDGES,
    **{f"known {name}": known.program for name, known in {**LPS, **MIPS}.items()},
    **{f"random {seed}": random_program(seed) for seed in range(12)},
}


def random_units(base: Program, seed: int, bits: int = 30) -> Program:
    """The program with its rows and columns in units between 2^-bits and 2^bits."""
    random = np.random.default_rng(seed)
    return in_units(base, *(random.integers(-bits, bits + 1, size) for size in base.A.shape))


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_exact(name: str, units: bool) -> None:
    """Undoing the units gives back every number bit for bit."""
    base = random_units(PROGRAMS[name], 1) if units else PROGRAMS[name]
    scaled, scaling = equilibrate(base)
    R, C = scaling.rows, scaling.columns
    assert (np.ldexp(scaled.A.toarray(), -(R[:, None] + C)) == base.A.toarray()).all()
    for ours, theirs, exponents in (
        (scaled.lower, base.lower, C),
        (scaled.upper, base.upper, C),
        (scaled.row_lower, base.row_lower, -R),
        (scaled.row_upper, base.row_upper, -R),
    ):
        assert (np.ldexp(ours, exponents) == theirs).all()
    unit = scaling.unit(base.objective)
    assert np.frexp(unit)[0] == 0.5
    # Costs far below the largest one may underflow; no other number does.
    costs = np.ldexp(scaling.objective(base.objective) * unit, -C)
    np.testing.assert_allclose(costs, base.objective, rtol=0, atol=1e-300)
    assert scaled.offset == 0.0 and (scaled.integer == base.integer).all()


@pytest.mark.parametrize("seed", range(6))
def test_points_values_and_bounds_come_back(seed: int) -> None:
    base, objectives = boxed_lp(seed)
    base = random_units(base, seed).with_objective(np.ldexp(objectives[1], seed))
    scaled, scaling = equilibrate(base)
    random, unit = np.random.default_rng(seed), scaling.unit(base.objective)
    x, y = scaled.lower + random.random(30) * (scaled.upper - scaled.lower), random.normal(size=20)
    y = np.where(np.isinf(scaled.row_lower), -abs(y), np.where(np.isinf(scaled.row_upper), abs(y), y))
    assert base.value(scaling.point(x)) == pytest.approx(unit * scaled.value(x), rel=1e-12)
    assert dual_bound(base, scaling.duals(y) * unit) == pytest.approx(unit * dual_bound(scaled, y), rel=1e-12)
    back = np.ldexp(base.A @ scaling.point(x), scaling.rows)
    np.testing.assert_allclose(back, scaled.A @ x, rtol=1e-12, atol=1e-12 * np.abs(back).max())


@pytest.mark.parametrize("seed", range(10))
def test_units_do_not_matter(seed: int) -> None:
    """Of a program with boxes a solver sees the same numbers, whatever the units, but for boxes up to 2^4 off."""
    base, _ = boxed_lp(seed)
    scaled, scaling = equilibrate(random_units(base, seed))
    sizes = np.maximum(np.abs(scaled.lower), np.abs(scaled.upper))
    assert (sizes >= 2.0**-5).all() and (sizes <= 2.0**4).all()
    largest = np.maximum.reduceat(np.abs(scaled.A.data), scaled.A.indptr[:-1][np.diff(scaled.A.indptr) > 0])
    assert (largest >= 0.5).all() and (largest < 1).all()
    costs = np.abs(scaling.objective(random_units(base, seed).objective)).max()
    assert 1 <= costs < 2


@pytest.mark.parametrize("seed", range(10))
def test_columns_without_boxes(seed: int) -> None:
    """Free columns: a dense matrix of normal numbers comes back as such from units of 2^-30 to 2^30."""
    random = np.random.default_rng(seed)
    base = Program(
        random.normal(size=12),
        sparse.csr_array(random.normal(size=(9, 12))),
        np.full(9, -INF),
        random.normal(size=9) + 4,
        np.full(12, -INF),
        np.full(12, INF),
        np.zeros(12, dtype=bool),
    )
    scaled, _ = equilibrate(random_units(base, seed))
    assert np.abs(scaled.A.data).max() <= 1
    assert np.median(np.abs(scaled.A.data)) > 2.0**-6
    assert 2.0**-6 < np.median(np.abs(scaled.row_upper)) < 2.0**6


def test_small_numbers_in_natural_units_stay() -> None:
    base = program([1, 2], [(-1, 3), (0, 0.5)], [(-INF, [0.6, 0.7], 1), (0, [0.5, -1e-6], INF)])
    scaled, scaling = equilibrate(base)
    assert not scaling.rows.any() and not scaling.columns.any()
    assert (scaled.A.toarray() == base.A.toarray()).all()


def test_whole_and_cone_columns_keep_their_unit() -> None:
    bounds = [(0.0, 1e-6)] * 2 + [(0.0, 1e6), (-INF, INF)]
    base = program([1, 1, 1, 1], bounds, [(0, [1e9, 1e9, 1e9, 1e9], INF)], [2])
    base = replace(base, cone=Cone(np.array([0]), np.zeros(1), 1e-7))
    assert equilibrate(base)[1].columns.tolist()[:3] == [0, -19, 0]


def test_wide_rows_keep_their_small_entries() -> None:
    """Whole columns fix the ratio of 2^60; above HiGHS's least entry of 1e-12 it is only where the row is lifted."""
    scaled, _ = equilibrate(program([1, 1], [(0, 1)] * 2, [(0, [2.0**45, 1], INF)], [0, 1]))
    assert np.abs(scaled.A.data).min() > 1e-12
    # What training has pushed to almost zero lifts the others by at most 2^10.
    scaled, _ = equilibrate(program([1, 1], [(0, 1)] * 2, [(0, [1.0, 1e-300], INF)]))
    assert np.abs(scaled.A.data).max() <= 2.0**10


def test_duplicates_and_zeros_are_joined() -> None:
    """HiGHS refuses an entry that is there twice."""
    A = sparse.csr_array((np.array([1.0, 2.0, 0.0, 4.0]), np.array([1, 1, 0, 0]), np.array([0, 3, 4])), shape=(2, 2))
    base = replace(program([1, 1], [(0, 1)] * 2, [(0, [0, 0], INF)] * 2), A=A)
    scaled, scaling = equilibrate(base)
    assert scaled.A.nnz == 2 and scaled.A.has_canonical_format
    assert base.A.nnz == 4
    assert (np.ldexp(scaled.A.toarray(), -(scaling.rows[:, None] + scaling.columns)) == [[0, 3], [4, 0]]).all()


def test_large_bounds_stay_finite_to_solvers() -> None:
    """A solver reads 1e20 as infinite, so that larger bounds are brought below it; infinite ones stay infinite."""
    made = program([1, 1], [(-1e25, 1e25), (-INF, 1e22)], [(-1e24, [1, 1], INF), (-INF, [1, 0], 1e27)])
    scaled, _ = equilibrate(made)
    for ours, theirs in (
        (scaled.lower, made.lower),
        (scaled.upper, made.upper),
        (scaled.row_lower, made.row_lower),
        (scaled.row_upper, made.row_upper),
    ):
        assert (np.isinf(ours) == np.isinf(theirs)).all()
        assert (np.abs(ours[np.isfinite(ours)]) < 1e20).all()


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=200)
@given(st.lists(numbers, min_size=6, max_size=6), st.lists(numbers, min_size=6, max_size=6), st.booleans())
def test_any_numbers(entries: list[float], ends: list[float], free: bool) -> None:
    """Down to 5e-324 and up to 1.8e308: what a solver sees is finite, and what must stay infinite stays so."""
    lower, upper = np.sort(np.reshape(ends, (3, 2)), axis=1).T
    if free:
        lower = np.full(3, -INF)
    base = program(ends[:3], list(zip(lower, upper, strict=True)), [(-INF, entries[:3], 1), (0, entries[3:], INF)])
    scaled, scaling = equilibrate(base)
    assert np.isfinite(scaled.A.data).all() and np.isfinite(scaled.objective).all()
    assert (np.isinf(scaled.lower) == np.isinf(lower)).all() and np.isfinite(scaled.upper).all()
    assert np.isfinite(scaling.unit(base.objective)) and scaling.unit(base.objective) > 0


def test_unit_of_no_costs() -> None:
    scaling = Scaling(np.zeros(0, dtype=np.int32), np.array([3, -2], dtype=np.int32))
    assert scaling.unit(np.zeros(2)) == 1.0
    assert scaling.unit(np.array([0.0, 3.0])) == 0.5
    assert scaling.objective(np.array([1.0, 3.0])).tolist() == [8 / 8, 0.75 / 8] and scaling.unit(np.ones(2)) == 8.0
