"""Solver interfaces: one list of programs with known answers for all, and what each promises of its own."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from programs import INFEASIBLE, LPS, MIPS, UNBOUNDED, boxed_lp, in_units, market_split, over_ball
from random_programs import optimum, program, random_program

from lpverify.backends import (
    BACKENDS,
    AbstractBackend,
    CvxpyBackend,
    HighsBackend,
    PulpBackend,
    Solution,
    Status,
    dual_bound,
)
from lpverify.backends import cvxpy as cvxpy_module
from lpverify.errors import ProgramError, SolverError
from lpverify.program import Array, Cone, Program

SOLVERS: dict[str, AbstractBackend] = {
    "highs": HighsBackend(),
    "highs presolved": HighsBackend(lp_presolve=True),
    "cvxpy": CvxpyBackend(),
    "cvxpy scipy": CvxpyBackend("SCIPY"),
    "cvxpy clarabel": CvxpyBackend("CLARABEL"),
    "pulp": PulpBackend(),
    "pulp highs": PulpBackend("HiGHS"),
}
# Clarabel ends near the optimum, CBC's numbers have eight digits; the others give vertices.
TOLERANCE = {"cvxpy clarabel": 1e-6, "pulp": 1e-6}
MIP_SOLVERS = [name for name in SOLVERS if name not in ("highs presolved", "cvxpy clarabel")]
each_solver = pytest.mark.parametrize("name", SOLVERS)
each_mip_solver = pytest.mark.parametrize("name", MIP_SOLVERS)


def check(given: Program, found: Solution, best: float, tolerance: float) -> None:
    """OPTIMAL means all of: a feasible point, its value, the bound, and for an LP the conditions of KKT."""
    assert found.status is Status.OPTIMAL, found.message
    assert found.x is not None
    size = max(1.0, abs(best))
    assert given.violation(found.x) <= tolerance * max(1.0, np.abs(found.x).max(initial=0.0))
    assert found.objective == pytest.approx(best, abs=tolerance * size)
    assert found.objective == given.value(found.x)
    assert found.bound <= best + tolerance * size
    if given.is_mip:
        assert found.row_duals is None
        assert found.bound >= best - tolerance * size
        return
    y = found.row_duals
    assert y is not None
    assert found.bound == dual_bound(given, y)
    check_kkt(given, found.x, y, tolerance)
    # A multiplier that is off by a little needs an infinite bound, and then bounds nothing.
    if np.isfinite([given.lower, given.upper]).all() or tolerance < 1e-6:
        assert found.bound >= best - 10 * tolerance * size


def check_kkt(given: Program, x: Array, y: Array, tolerance: float) -> None:
    """Stationary and complementary: a multiplier pushes only away from the bound at which its row or column is."""
    rows, reduced = given.A @ x, given.objective - given.A.T @ y
    for value, low, high, price in (
        (rows, given.row_lower, given.row_upper, y),
        (x, given.lower, given.upper, reduced),
    ):
        slack = 10 * tolerance * max(1.0, np.abs(value).max(initial=0.0))
        few = 10 * tolerance * max(1.0, np.abs(given.objective).max(initial=0.0))
        assert (price[value > low + slack] <= few).all()
        assert (price[value < high - slack] >= -few).all()


def installed(name: str) -> AbstractBackend:
    """The solver, or a skip that says what is missing."""
    try:
        SOLVERS[name].open(LPS["textbook"].program)
    except SolverError as error:
        pytest.skip(str(error))
    return SOLVERS[name]


@each_solver
@pytest.mark.parametrize("case", LPS)
def test_known_lp(name: str, case: str) -> None:
    known, tolerance = LPS[case], TOLERANCE.get(name, 1e-8)
    found = installed(name).solve(known.program)
    check(known.program, found, known.optimum, tolerance)
    if known.x is not None:
        np.testing.assert_allclose(found.x, known.x, atol=10 * tolerance)
    if known.row_duals is not None:
        np.testing.assert_allclose(found.row_duals, known.row_duals, atol=10 * tolerance)


@each_mip_solver
@pytest.mark.parametrize("case", MIPS)
def test_known_mip(name: str, case: str) -> None:
    known = MIPS[case]
    found = installed(name).solve(known.program)
    check(known.program, found, known.optimum, 1e-6)
    if known.x is not None:
        np.testing.assert_allclose(found.x, known.x, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for case in INFEASIBLE for name in (MIP_SOLVERS if INFEASIBLE[case].program.is_mip else SOLVERS)],
)
def test_infeasible(name: str, case: str) -> None:
    given = INFEASIBLE[case].program
    found = installed(name).solve(given)
    assert found.status is Status.INFEASIBLE, found.message
    assert found.x is None and math.isnan(found.objective)


@each_solver
@pytest.mark.parametrize("case", UNBOUNDED)
def test_unbounded(name: str, case: str) -> None:
    found = installed(name).solve(UNBOUNDED[case].program)
    assert found.status is Status.UNBOUNDED, found.message
    assert found.bound == -math.inf


@each_solver
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", [case for case in LPS if case != "no columns"])
def test_badly_scaled_lp(name: str, case: str, seed: int) -> None:
    """Rows and columns in units between 2^-30 and 2^30, and the objective in one of 2^-30 or 2^30."""
    known, tolerance = LPS[case], TOLERANCE.get(name, 1e-8)
    base, random = known.program, np.random.default_rng(seed)
    rows, columns = random.integers(-30, 31, base.num_rows), random.integers(-30, 31, base.num_columns)
    unit = random.choice([2.0**-30, 1.0, 2.0**30]) if base.objective.any() else 1.0
    given = in_units(base, rows, columns)
    given = given.with_objective(unit * given.objective, unit * base.offset)
    found = installed(name).solve(given)
    assert found.x is not None and found.row_duals is not None
    # Judged in the units of the program that it is: there the tolerances mean something.
    x, y = np.ldexp(found.x, columns), np.ldexp(found.row_duals, rows) / unit
    back = replace(found, x=x, row_duals=y, objective=base.value(x), bound=dual_bound(base, y))
    check(base, back, known.optimum, tolerance)
    assert back.objective == pytest.approx(found.objective / unit, abs=1e-12)


@each_mip_solver
@pytest.mark.parametrize("case", MIPS)
def test_badly_scaled_mip(name: str, case: str) -> None:
    base, random = MIPS[case].program, np.random.default_rng(5)
    rows, columns = random.integers(-30, 31, base.num_rows), random.integers(-30, 31, base.num_columns)
    found = installed(name).solve(in_units(base, rows, columns))
    assert found.x is not None
    x = np.where(base.integer, found.x, np.ldexp(found.x, columns))
    check(base, replace(found, x=x, objective=base.value(x)), MIPS[case].optimum, 1e-6)


@each_solver
@pytest.mark.parametrize("seed", range(4))
def test_objective_sequence(name: str, seed: int) -> None:
    """A session's answers are those of fresh solves, and scipy's; the objectives differ in size by up to 10^9."""
    given, objectives = boxed_lp(seed)
    backend, tolerance = installed(name), TOLERANCE.get(name, 1e-8)
    session = backend.open(given)
    for objective in [*objectives, 0 * objectives[0], objectives[0]]:
        now = given.with_objective(objective, 2.0)
        best = optimum(now)
        assert isinstance(best, float)
        size = np.abs(objective).max()
        for found in (session.minimise(objective, 2.0), backend.solve(now)):
            check(now, found, best, tolerance * max(1.0, size))


@pytest.mark.parametrize("name", ["highs", "cvxpy", "pulp highs"])
def test_small_entries_count(name: str) -> None:
    """1 + 2^-33 y = 1 + 2^-13; whole columns keep their units, and HiGHS left to itself drops 2^-33: infeasible."""
    given = program([0, 1], [(0, 1), (0, 2.0**21)], [(1 + 2.0**-13, [1, 2.0**-33], 1 + 2.0**-13)], [0, 1])
    found = SOLVERS[name].solve(given)
    assert found.status is Status.OPTIMAL
    # Within the row's tolerance of 1e-7.
    assert found.objective == pytest.approx(2.0**20, abs=1e-7 * 2.0**33)


@pytest.mark.parametrize("seed", range(30))
def test_random_lps(seed: int) -> None:
    """HiGHS on LPs of every kind: scipy's optimum, or its words for why there is none."""
    given = random_program(seed).relaxed()
    best = optimum(given)
    for backend in (HighsBackend(), HighsBackend(lp_presolve=True)):
        found = backend.solve(given)
        if isinstance(best, float):
            check(given, found, best, 1e-8)
        else:
            assert found.status is Status(best)


@each_mip_solver
@pytest.mark.parametrize("seed", range(10))
def test_random_mips(name: str, seed: int) -> None:
    given, _ = boxed_lp(seed, 8, 3)
    given = replace(
        given,
        integer=np.arange(8) < 5,
        lower=np.floor(3 * given.lower),
        upper=np.ceil(3 * given.upper),
        row_lower=given.row_lower - 1,
        row_upper=given.row_upper + 1,
    )
    best = optimum(given)
    found = installed(name).solve(given)
    if isinstance(best, float):
        check(given, found, best, 1e-6)
    else:
        assert found.status is Status(best)


def test_session_of_a_mip_solves_each_objective() -> None:
    given = MIPS["knapsack"].program
    session = HighsBackend().open(given)
    for costs, best in (([-60, -100, -120], -220.0), ([1, -3, 1], -3.0), ([-9, -1, -1], -10.0), ([0, 0, 0], 0.0)):
        found = session.minimise(np.array(costs, dtype=float), 1.0)
        check(given.with_objective(np.array(costs, dtype=float), 1.0), found, best + 1.0, 1e-9)


@each_mip_solver
def test_time_limit_of_a_mip(name: str) -> None:
    """LIMIT within the limit and a little, with a point and a bound below it; the best of all is known to be >= 0."""
    given = market_split(5, 40)
    found = installed(name).solve(given, time_limit=1.0)
    assert found.status is Status.LIMIT, found.message
    assert found.seconds < 3.0
    assert found.x is not None and given.violation(found.x) <= 1e-6 * 5000
    assert found.objective == given.value(found.x)
    assert found.bound <= found.objective
    # Only scipy through cvxpy keeps what it knows of the bound to itself.
    assert found.bound > -1e-3 or name == "cvxpy scipy"


@each_solver
def test_time_limit_of_an_lp(name: str) -> None:
    given, _ = boxed_lp(0, 300, 200)
    best = optimum(given)
    found = installed(name).solve(given, time_limit=0.0)
    assert found.status is Status.LIMIT, found.message
    assert isinstance(best, float) and found.bound <= best
    if name.startswith("highs"):
        assert found.row_duals is not None and math.isfinite(found.bound)


@each_mip_solver
@pytest.mark.parametrize("case", MIPS)
@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_stop_at_never_lies(name: str, case: str, shift: float) -> None:
    """With or without an early end, the answer shows the side: a point not above it, or a bound above it."""
    known = MIPS[case]
    found = installed(name).solve(known.program, stop_at=known.optimum + shift)
    assert found.status in (Status.OPTIMAL, Status.STOPPED)
    if shift > 0:
        assert found.objective <= known.optimum + shift and found.bound <= known.optimum + 1e-6
    else:
        assert known.optimum + shift < found.bound <= known.optimum + 1e-6


def test_cone() -> None:
    for seed in range(5):
        known = over_ball(seed)
        found = CvxpyBackend().solve(known.program)
        assert found.status is Status.OPTIMAL
        assert found.x is not None and known.program.violation(found.x) <= 1e-7
        np.testing.assert_allclose(found.x, known.x, atol=1e-4)
        assert found.objective == pytest.approx(known.optimum, abs=1e-7)
        assert found.bound == pytest.approx(known.optimum, abs=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_dual_bound_over_a_ball_and_a_box(seed: int) -> None:
    """Any multipliers bound the optimum; Clarabel's give it, also where the ball sticks out of the box."""
    random = np.random.default_rng(seed)
    given, _ = boxed_lp(seed, 12, 6)
    center = (given.lower + given.upper) / 2
    relaxed = replace(given, row_lower=given.row_lower - 9, row_upper=given.row_upper + 9)
    radius = float(np.linalg.norm(given.upper - given.lower)) * random.choice([0.1, 0.4, 2.0])
    ball = replace(relaxed, cone=Cone(np.arange(10), center[:10], radius))
    found = CvxpyBackend().solve(ball)
    assert found.status is Status.OPTIMAL
    assert found.bound == pytest.approx(found.objective, abs=1e-5)
    for _ in range(20):
        multipliers = random.normal(size=6) * (np.isfinite(ball.row_lower) & np.isfinite(ball.row_upper))
        assert dual_bound(ball, multipliers) <= found.objective + 1e-6


def test_dual_bound_needs_finite_bounds() -> None:
    given = LPS["textbook"].program
    assert dual_bound(given, np.array([0, -1.5, -1])) == -36.0
    # Looser, but a bound: every column still has the right sign.
    assert dual_bound(given, np.array([-1, -3.0, -2])) == -4 - 36 - 36
    # Each asks for an upper bound of a column or a lower bound of a row, of which there are none.
    assert dual_bound(given, np.array([0, -1.5, -0.5])) == -math.inf
    assert dual_bound(given, np.array([0.5, -1.5, -1.5])) == -math.inf
    # What rounding leaves of zero asks for nothing.
    thirds = program([1 / 3, 2 / 3], [(-math.inf, math.inf)] * 2, [(1, [0.1, 0.2], 1)])
    assert dual_bound(thirds, np.array([10 / 3])) == pytest.approx(10 / 3)


def refusals() -> list[tuple[AbstractBackend, Program, str]]:
    cone, mip, lp = over_ball().program, MIPS["knapsack"].program, LPS["textbook"].program
    return [
        (HighsBackend(), cone, "second-order cone; use backend cvxpy"),
        (PulpBackend(), cone, "second-order cone; use backend cvxpy"),
        (CvxpyBackend("HIGHS"), cone, "HIGHS cannot handle"),
        (CvxpyBackend("CLARABEL"), mip, "CLARABEL cannot handle"),
        (CvxpyBackend("NONESUCH"), lp, "'NONESUCH' is not installed; there are .*HIGHS"),
        (PulpBackend("NONESUCH"), lp, "'NONESUCH' is unknown; there are CBC and HiGHS"),
        (HighsBackend("NONESUCH"), lp, "'NONESUCH' is unknown"),
        (HighsBackend(mip_rel_gap=-1.0), lp, "option mip_rel_gap=-1.0 returned kError"),
    ]


@pytest.mark.parametrize(("backend", "given", "message"), refusals())
def test_refusals(backend: AbstractBackend, given: Program, message: str) -> None:
    with pytest.raises(SolverError, match=message) as caught:
        backend.open(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "module"), [("highs", "highspy"), ("cvxpy", "cvxpy"), ("pulp", "pulp")])
def test_missing_package(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SolverError, match=rf"backend {name}: cannot import {module} .*pip install {module}"):
        BACKENDS[name]().open(LPS["textbook"].program)


def test_no_solver_is_imported_before_it_is_needed() -> None:
    code = "import sys, lpverify.backends; sys.exit(bool({'highspy', 'cvxpy', 'pulp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    given = LPS["textbook"].program
    with pytest.raises(ProgramError, match="objective"):
        HighsBackend().open(given).minimise(np.array([1.0, value]))
    with pytest.raises(ProgramError, match="offset"):
        HighsBackend().open(given).minimise(given.objective, value)
    with pytest.raises(ProgramError, match="A has"):
        program([1, 1], [(0, 1)] * 2, [(0, [1, value], 1)])
    for low, high in ((math.nan, 1.0), (0.0, math.nan), (math.inf, math.inf), (-math.inf, -math.inf), (1.0, 0.5)):
        with pytest.raises(ProgramError, match="bounds"):
            program([1], [(low, high)])
        with pytest.raises(ProgramError, match="bounds"):
            program([1], [(0, 1)], [(low, [1], high)])


@pytest.mark.parametrize("said", ["optimal_inaccurate", "infeasible_inaccurate", "infeasible_or_unbounded", "new"])
def test_other_statuses_of_cvxpy_are_failures(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy

    monkeypatch.setattr(cvxpy.Problem, "status", said)
    found = CvxpyBackend().solve(LPS["textbook"].program)
    assert found.status is Status.FAILED and said in found.message


@pytest.mark.parametrize("said", [(1, 0), (1, -1), (0, 0), (-3, -1), (0, 1)])
def test_other_statuses_of_pulp_are_failures(said: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    import pulp

    def assign(self: Any, *_: int) -> None:
        self.status, self.sol_status = said

    monkeypatch.setattr(pulp.LpProblem, "solve", assign)
    assert installed("pulp").solve(LPS["textbook"].program).status is Status.FAILED


@pytest.mark.parametrize("name", ["cvxpy", "pulp highs"])
def test_solver_that_raises_is_a_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import highspy

    def broken(self: Any) -> None:
        raise RuntimeError("out of order\nsecond line")

    monkeypatch.setattr(highspy.Highs, "run", broken)
    found = SOLVERS[name].solve(LPS["textbook"].program)
    assert found.status is Status.FAILED
    assert "out of order" in found.message and "\n" not in found.message


def test_unknown_time_limit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(cvxpy_module._TIME_LIMITS, "CLARABEL")
    found = CvxpyBackend("CLARABEL").solve(LPS["textbook"].program, time_limit=9.0)
    assert found.status is Status.OPTIMAL and "not told the time limit" in found.message


def test_no_output(capfd: pytest.CaptureFixture[str]) -> None:
    for name in SOLVERS:
        installed(name).solve(LPS["textbook"].program)
    for name in MIP_SOLVERS:
        installed(name).solve(MIPS["knapsack"].program)
    assert capfd.readouterr() == ("", "")
