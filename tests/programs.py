"""Programs with known answers, for every solver interface; the arithmetic stands beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from random_programs import INF, UNIT, program
from scipy import sparse

from lpverify.backends import Status
from lpverify.program import Array, Cone, Program


@dataclass(frozen=True, eq=False)
class Known:
    """A program with its answer.

    Attributes:
        status: how a solver ends.
        optimum: the least objective, with the constant; NaN without one.
        x: (n,) the only best point, None where there are several.
        row_duals: (m,) the only best multipliers, None where there are several.
    """

    program: Program
    optimum: float = float("nan")
    x: Sequence[float] | None = None
    row_duals: Sequence[float] | None = None
    status: Status = Status.OPTIMAL


POSITIVE, FREE = (0.0, INF), (-INF, INF)

LPS: dict[str, Known] = {
    # Vertex of the second and third row. -3 = 0 y1 + 3 y3 and -5 = 2 y2 + 2 y3 give the duals.
    "textbook": Known(
        program([-3, -5], [POSITIVE] * 2, [(-INF, [1, 0], 4), (-INF, [0, 2], 12), (-INF, [3, 2], 18)]),
        -36.0,
        [2, 6],
        [0, -1.5, -1],
    ),
    # Both rows held from below: y1 + y2 = 2, y1 + 3 y2 = 3.
    "diet": Known(
        program([2, 3], [POSITIVE] * 2, [(4, [1, 1], INF), (6, [1, 3], INF)], offset=-1.0), 8.0, [3, 1], [1.5, 0.5]
    ),
    # t >= |x - 3|, so t + x/4 is least where t = 0: y1 + y2 = 1, y2 - y1 = 1/4.
    "free columns": Known(
        program([0.25, 1], [FREE] * 2, [(-3, [-1, 1], INF), (3, [1, 1], INF)]), 0.75, [3, 0], [0.375, 0.625]
    ),
    # The corner x + y = 3, x - y = -2: y1 + y2 = -1, y1 - y2 = -2.
    "ranges": Known(
        program([-1, -2], [(0, 10)] * 2, [(1, [1, 1], 3), (-2, [1, -1], 1)]), -5.5, [0.5, 2.5], [-1.5, 0.5]
    ),
    # Every kind of bound: each column goes to the end that its cost asks for.
    "bounds": Known(
        program([-1, 1, -1, 1, 2], [(-INF, -1), (-5, INF), (0, 4), (2, 2), (-3, -2)], [(-100, [1] * 5, 100)]),
        1.0 - 5 - 4 + 2 - 6,
        [-1, -5, 4, 2, -3],
        [0],
    ),
    # 5 units from the first supply to the first demand at 2, 15 to the third at 5; 5 at 3 and 25 at 1 from the second.
    # The supplies equal the demands, so that one equation follows from the others and the duals are not unique.
    "transport": Known(
        program(
            [2, 4, 5, 3, 1, 7],
            [POSITIVE] * 6,
            [
                (20, [1, 1, 1, 0, 0, 0], 20),
                (30, [0, 0, 0, 1, 1, 1], 30),
                (10, [1, 0, 0, 1, 0, 0], 10),
                (25, [0, 1, 0, 0, 1, 0], 25),
                (15, [0, 0, 1, 0, 0, 1], 15),
            ],
        ),
        125.0,
        [5, 0, 15, 5, 25, 0],
    ),
    # Four constraints meet in (1, 1).
    "degenerate": Known(
        program([-1, -1], [UNIT] * 2, [(-INF, [1, 1], 2), (-INF, [1, 2], 3), (-INF, [2, 1], 3)]), -2.0, [1, 1]
    ),
    # Every point of the edge x + y = 1.
    "many points": Known(program([-1, -1], [POSITIVE] * 2, [(-INF, [1, 1], 1)]), -1.0, None, [-1]),
    # The same equation twice, and once doubled.
    "repeated rows": Known(
        program([1, 2], [POSITIVE] * 2, [(1, [1, 1], 1), (1, [1, 1], 1), (2, [2, 2], 2)], offset=0.5), 1.5, [1, 0]
    ),
    # x = 1 - y - z and z = y + 1/4: 1 - 2y - 1/4 + 2y + 3y + 3/4 = 3/2 + 3y.
    "equations": Known(
        program([1, 2, 3], [FREE, POSITIVE, POSITIVE], [(1, [1, 1, 1], 1), (-0.25, [0, 1, -1], -0.25)]),
        1.5,
        [0.75, 0, 0.25],
        [1, -2],
    ),
    # One neuron's triangle, h <= (x + 1) / 2: where it binds, 2x - 3h = x/2 - 3/2.
    "triangle": Known(
        program([2, -3], [(-1, 1), UNIT], [(0, [-1, 1], INF), (-INF, [-0.5, 1], 0.5)]), -2.0, [-1, 0], None
    ),
    "no cost": Known(program([0, 0], [UNIT] * 2, [(0.5, [1, 1], 1)], offset=3.0), 3.0),
    "no rows": Known(program([1, -1], [(-2, 3), UNIT], offset=4.0), 1.0, [-2, 1], []),
    "empty and free rows": Known(
        program([1, 1], [UNIT] * 2, [(-1, [0, 0], 3), (1, [1, 2], INF), (-INF, [1, 1], INF), (-2, [0, 0], INF)]),
        0.5,
        [0, 0.5],
        [0, 0.5, 0, 0],
    ),
    "unused columns": Known(
        program([0, 1, -1], [(2, 5), (-1, 1), (-9, -4)], [(-0.5, [0, 1, 0], INF)]), 3.5, None, [1]
    ),
    "no columns": Known(program([], [], [(-1, [], 1)], offset=2.5), 2.5, [], [0]),
}

MIPS: dict[str, Known] = {
    "knapsack": Known(program([-60, -100, -120], [UNIT] * 3, [(-INF, [10, 20, 30], 50)], [0, 1, 2]), -220.0, [0, 1, 1]),
    # The relaxation gives -3.5.
    "whole": Known(program([-1, -1], [(0, 5)] * 2, [(-INF, [2, 2], 7)], [0, 1], offset=1.0), -2.0),
    # x = -1 + 5t, y = 2 - 3t: x + y = 1 + 2t, and x >= -10 asks for t >= -9/5.
    "diophantine": Known(program([1, 1], [(-10, 10)] * 2, [(7, [3, 5], 7)], [0, 1]), -1.0, [-6, 5]),
    # Bounds of a whole column that are not whole.
    "odd bounds": Known(program([1, -1], [(-2.5, 2.5), (-0.75, 3.25)], (), [0, 1]), -5.0, [-2, 3]),
    # h = relu(2x - 1/2) with a phase a: for x > 1/4, x/2 - h = 1/2 - 3x/2, else x/2.
    "big M": Known(
        program(
            [0.5, 0, -1, 0],
            [(-1, 1), (-2.5, 1.5), (0, 1.5), UNIT],
            [(-0.5, [-2, 1, 0, 0], -0.5), (0, [0, -1, 1, 0], INF), (-INF, [0, -1, 1, 2.5], 2.5),
             (-INF, [0, 0, 1, -1.5], 0)],
            [3],
        ),
        -1.0,
        [1, 1.5, 1.5, 1],
    ),
    # The relaxation takes every y at 1/3 of its cost; whole ones cost 7 for x1 + x2, or 5 + 4 for each by itself.
    "fixed costs": Known(
        program([5, 4, 7, 0, 0, 0], [UNIT] * 3 + [POSITIVE] * 3,
                [(1, [0, 0, 0, 1, 1, 1], 1), (-INF, [-3, 0, 0, 1, 0, 0], 0), (-INF, [0, -3, 0, 0, 1, 0], 0),
                 (-INF, [0, 0, -3, 0, 0, 1], 0)], [0, 1, 2]),
        4.0,
        [0, 1, 0, 0, 1, 0],
    ),
}  # fmt: skip

INFEASIBLE: dict[str, Known] = {
    "rows against boxes": Known(program([1, 1], [UNIT] * 2, [(3, [1, 1], INF)])),
    "rows against rows": Known(program([1, 1], [FREE] * 2, [(1, [1, 1], INF), (-INF, [1, 1], 0.5)])),
    "equations": Known(program([1, 1], [POSITIVE] * 2, [(1, [1, 1], 1), (1, [1, -1], 1), (3, [2, 1], 3)])),
    "empty row": Known(program([1, 1], [UNIT] * 2, [(1, [0, 0], 2), (0, [1, 1], 2)])),
    "no columns": Known(program([], [], [(1, [], 2)])),
    "half": Known(program([1, 1], [UNIT] * 2, [(1, [2, 0], 1), (0, [1, 1], 2)], [0])),
    "parity": Known(program([1, 0, 0], [(0, 9)] * 3, [(7, [2, 4, -6], 7)], [0, 1, 2])),
}

UNBOUNDED: dict[str, Known] = {
    "ray": Known(program([-2, 1], [POSITIVE] * 2, [(-INF, [1, -1], 1)])),
    "free column": Known(program([0, 1], [UNIT, FREE], [(-INF, [1, 1], 1)])),
    "no rows": Known(program([-1, 0], [POSITIVE, UNIT])),
}
INFEASIBLE = {name: replace(known, status=Status.INFEASIBLE) for name, known in INFEASIBLE.items()}
UNBOUNDED = {name: replace(known, status=Status.UNBOUNDED) for name, known in UNBOUNDED.items()}


def in_units(given: Program, rows: Array, columns: Array) -> Program:
    """The same program with row i times 2^rows[i] and column j in units of 2^columns[j]; whole columns keep theirs."""
    columns = np.where(given.integer, 0, columns).astype(int)
    rows = rows.astype(int)
    A = given.A.copy()
    A.data = np.ldexp(A.data, rows[np.repeat(np.arange(given.num_rows), np.diff(A.indptr))] + columns[A.indices])
    return replace(
        given,
        objective=np.ldexp(given.objective, columns),
        A=A,
        row_lower=np.ldexp(given.row_lower, rows),
        row_upper=np.ldexp(given.row_upper, rows),
        lower=np.ldexp(given.lower, -columns),
        upper=np.ldexp(given.upper, -columns),
    )


def market_split(rows: int, columns: int, seed: int = 0) -> Program:
    """Whole columns whose sums shall be half of each row's; what is over or short costs 1.

    Cornuéjols & Dawande 1998: simplex-based branch and bound needs years from about 5 rows and 40 columns; points are
    found at once.
    """
    entries = np.random.default_rng(seed).integers(0, 100, (rows, columns)).astype(float)
    slack = sparse.eye_array(rows)
    A = sparse.csr_array(sparse.hstack([sparse.csr_array(entries), slack, -slack]))
    half = np.floor(entries.sum(1) / 2)
    n = columns + 2 * rows
    return Program(
        np.repeat([0.0, 1.0], [columns, 2 * rows]),
        A,
        half,
        half,
        np.zeros(n),
        np.repeat([1.0, 5000.0], [columns, 2 * rows]),
        np.arange(n) < columns,
    )


def over_ball(seed: int = 0) -> Known:
    """A cost over an l2 ball; with r = radius / |cost|, the best point is center - r cost."""
    random = np.random.default_rng(seed)
    cost, center, radius = random.normal(size=5), random.random(5), 0.25
    away = radius / float(np.linalg.norm(cost))
    made = program(cost.tolist(), [(-9, 9)] * 5, [(-INF, [1] * 5, 99)], offset=1.5)
    made = replace(made, cone=Cone(np.arange(5), center, radius))
    return Known(made, float(cost @ center) - radius * float(np.linalg.norm(cost)) + 1.5, (center - away * cost), [0])


def boxed_lp(seed: int, n: int = 30, m: int = 20) -> tuple[Program, list[Array]]:
    """A feasible LP with finite boxes and rows of every kind, and some objectives."""
    random = np.random.default_rng(seed)
    A = sparse.random_array((m, n), density=0.4, format="csr", rng=random, data_sampler=random.standard_normal)
    lower, width = random.normal(size=n), 2 * random.random(n)
    point = lower + width * random.random(n)
    values, kind = A @ point, random.integers(0, 4, m)
    row_lower = np.select([kind == 0, kind == 1], [-INF, values], values - random.random(m))
    row_upper = np.select([kind == 1, kind == 2], [values, INF], values + random.random(m))
    objectives = [random.normal(size=n) * 10.0 ** random.integers(-4, 5) for _ in range(8)]
    made = Program(objectives[0], A, row_lower, row_upper, lower, lower + width, np.zeros(n, dtype=bool))
    return made, objectives
