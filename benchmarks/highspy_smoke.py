"""Does this version of highspy crash? Random small LPs and MILPs, with objectives changed and solved again.

    python benchmarks/highspy_smoke.py [COUNT]

Prints the version and how many problems were solved to optimality; a crash ends the process with a signal.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import highspy
import numpy as np


def solve(rng: np.random.Generator, integer: bool) -> bool:
    """One random bounded problem; an LP is solved again for five other objectives."""
    columns, rows = int(rng.integers(5, 40)), int(rng.integers(3, 30))
    matrix = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.4)
    place, row = np.nonzero(matrix.T)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, rows
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = rng.normal(size=columns), -np.ones(columns), 3 * np.ones(columns)
    lp.row_lower_, lp.row_upper_ = np.full(rows, -highspy.kHighsInf), 3 * rng.random(rows)
    starts = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=columns))])
    lp.a_matrix_.start_, lp.a_matrix_.index_ = starts.astype(np.int32), row.astype(np.int32)
    lp.a_matrix_.value_ = matrix.T[place, row]
    if integer:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(rng.random() < 0.5)] for _ in range(columns)]
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("time_limit", 5.0)
    highs.passModel(lp)
    highs.run()
    for _ in range(0 if integer else 5):
        highs.changeColsCost(columns, np.arange(columns, dtype=np.int32), rng.normal(size=columns))
        highs.run()
    return bool(highs.getModelStatus() == highspy.HighsModelStatus.kOptimal)


def main() -> None:
    """Solve COUNT problems (300 by default), every other one with integers."""
    count, rng = int(sys.argv[1]) if len(sys.argv) > 1 else 300, np.random.default_rng(0)
    solved = sum(solve(rng, integer=bool(i % 2)) for i in range(count))
    print(f"highspy {version('highspy')}: {solved} of {count} solved to optimality, no crash")


if __name__ == "__main__":
    main()
