"""Programs for tests of files: random ones with every kind of row and bound, and the edges of both formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from lpverify.program import Program

INF = np.inf


def random_program(seed: int) -> Program:
    """A feasible program; every second pair of seeds has infinite bounds, odd seeds whole columns."""
    random = np.random.default_rng(seed)
    n, m = int(random.integers(2, 9)), int(random.integers(1, 9))
    A = sparse.random_array((m, n), density=0.6, format="csr", rng=random, data_sampler=random.standard_normal)
    integer = random.random(n) < 0.5 * (seed % 2)
    x = np.where(integer, np.rint(2 * random.normal(size=n)), 2 * random.normal(size=n))
    ends = (x - 3 * random.random(n), x + 3 * random.random(n))
    lower, upper = (np.where(integer, np.rint(end), end) for end in ends)
    if seed % 4 < 2:
        lower[random.random(n) < 0.2], upper[random.random(n) < 0.2] = -INF, INF
    fixed = random.random(n) < 0.1
    lower[fixed] = upper[fixed] = x[fixed]
    values, kind = A @ x, random.integers(0, 4, m)
    row_lower = np.select([kind == 0, kind == 1], [-INF, values], values - 2 * random.random(m))
    row_upper = np.select([kind == 1, kind == 2], [values, INF], values + 2 * random.random(m))
    costs = random.normal(size=n) * 10.0 ** random.integers(-3, 4, n)
    return Program(costs, A, row_lower, row_upper, lower, upper, integer, offset=float(random.normal()))


def program(
    costs: Sequence[float],
    bounds: Sequence[tuple[float, float]],
    rows: Sequence[tuple[float, Sequence[float], float]] = (),
    integer: Sequence[int] = (),
    **more: Any,
) -> Program:
    """A program written out: rows are (lower, entries, upper), ``integer`` the whole columns."""
    n = len(costs)
    A = sparse.csr_array(np.array([entries for _, entries, _ in rows], dtype=np.float64).reshape(len(rows), n))
    return Program(
        np.array(costs, dtype=np.float64),
        A,
        np.array([low for low, _, _ in rows], dtype=np.float64),
        np.array([high for _, _, high in rows], dtype=np.float64),
        np.array([low for low, _ in bounds], dtype=np.float64),
        np.array([high for _, high in bounds], dtype=np.float64),
        np.isin(np.arange(n), integer),
        **more,
    )


UNIT = (0.0, 1.0)
EDGES: dict[str, Program] = {
    "no-rows": program([1, -1], [(-2, 3), UNIT], offset=4.0),
    "free-row": program([1, 1], [UNIT, UNIT], [(-INF, [1, 2], INF), (1, [1, 1], INF)]),
    "empty-row": program([1, 1], [UNIT, UNIT], [(-1, [0, 0], 3), (1, [1, 1], INF)]),
    "unused-column": program([0, 1], [(2, 5), (-1, 1)], [(-0.5, [0, 1], INF)]),
    "negative-upper": program([-1, -1, 1], [(-INF, -3), (-5, -2), (-7, -0.5)], [(-9, [0, 1, 1], INF)]),
    "zero-upper": program([-1, -1, -1], [(-INF, 0), (-4, 0), (0, 0)], [(-INF, [1, 1, 1], 5)]),
    "minus-zero": program([-0.0, 1], [(-0.0, 1), (-1, -0.0)], [(-0.0, [1, 1], INF)], offset=-0.0),
    "ranges": program(
        [-1, -2],
        [(0, 9), (-9, 9)],
        [(1, [1, 1], 3), (-3, [1, -1], -1), (-2, [2, 1], 5), (0, [1, 3], 4), (-4, [3, 1], 0)],
    ),
    # No float64 width gives both bounds of the first row; the second row's lower bound is lost beside its upper one.
    "awkward-ranges": program([-1, 1], [(-9, 9), (-9, 9)], [(-1, [1, 1], 1 + 2**-52), (1e-20, [1, -1], 1)]),
    "equations": program([1, 2, 3], [(0, INF)] * 3, [(1, [1, 1, 1], 1), (-0.25, [1, -1, 0], -0.25)], offset=-7.25),
    "whole-above-1": program([-1, 1], [(0, INF), (-INF, 2)], [(-INF, [1, 0], 7.5), (-3.5, [0, 1], INF)], [0, 1]),
    "whole-negative": program([-1, 1, 1], [(-3.5, -1.5), (-9, 0), (2, 2)], [(-11.5, [1, 1, 0], INF)], [0, 1, 2]),
    "whole-free": program([1], [(-INF, INF)], [(-4.5, [1], INF)], [0]),
    "binaries": program([-3, -2, -4, 1], [UNIT] * 4, [(-INF, [2, 1, 3, -1.5], 3)], [0, 1, 2]),
    "digits-of-numbers": program(
        [1 / 3, 5e-324, -1.7976931348623157e9, np.nextafter(1, 2)],
        [(1e-300, 0.1 + 0.2), (-1e-17, 1e19), (-2 / 3, 123456789.123456789), (-np.pi, np.nextafter(-3, -4))],
        [(-INF, [1.0000000000000002e-8, -1e14, 1 / 7, 1e5], 1e19)],
    ),
    "names": program(
        [1, 2, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [(-1, 1)] * 13,
        [(1, [1] * 13, INF), (-2, [1, -1] * 6 + [1], 2), (-2, [1, 1] * 6 + [1], 2), (-9, [2] * 13, 30)],
        column_names=("e5", "inf", "free", "st", "3x", "a b", "x+y", "ä", "", "x" * 300, "x" * 301, "constant", "End"),
        row_names=("obj", "Bounds", "a_up", "a"),
        offset=2.0,
    ),
    "infeasible": program([1, 1], [UNIT, UNIT], [(3, [1, 1], INF)]),
    "infeasible-whole": program([1], [(0, 1)], [(0.25, [1], 0.75)], [0]),
    "unbounded": program([-1, 1], [(0, INF), (0, INF)], [(-INF, [1, -1], 1)]).with_objective(np.array([-2.0, 1.0])),
}


def named_programs() -> Iterator[tuple[str, Program]]:
    """The edges, and random programs."""
    yield from EDGES.items()
    for seed in range(40):
        yield f"random-{seed}", random_program(seed)


def optimum(given: Program) -> float | str:
    """The optimum of the arrays, "infeasible" or "unbounded", by the HiGHS in scipy."""
    solved = _solve(given, given.objective)
    if solved.status == 0:
        return float(solved.fun + given.offset)
    # It does not always say which of the two.
    return "unbounded" if _solve(given, np.zeros(given.num_columns)).status == 0 else "infeasible"


def _solve(given: Program, costs: np.ndarray) -> OptimizeResult:
    rows = [LinearConstraint(given.A, given.row_lower, given.row_upper)] if given.num_rows else []
    bounds, whole = Bounds(given.lower, given.upper), given.integer.astype(int)
    solved = milp(costs, integrality=whole, bounds=bounds, constraints=rows, options={"mip_rel_gap": 0.0})
    assert solved.status in (0, 2, 3, 4), solved.message
    return solved
