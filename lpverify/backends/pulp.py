"""CBC and HiGHS through PuLP.

PuLP holds a program as Python objects and writes a file for CBC, so that this is the slowest of the interfaces; CBC's
numbers come back with eight digits. Source: coin-or.github.io/pulp.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, import_solver, one_line
from lpverify.backends.highs import SMALL_ENTRY, forget_threads
from lpverify.errors import SolverError
from lpverify.program import Array, Program

_SOLVERS = ("CBC", "HiGHS")
# PuLP's status and sol_status: its status alone is "Optimal" after a time limit too. What is not here is FAILED.
_STATUSES = {
    (1, 1): Status.OPTIMAL,
    (1, 2): Status.LIMIT,
    (-1, -1): Status.INFEASIBLE,
    # CBC's "Integer infeasible".
    (-1, 0): Status.INFEASIBLE,
    (-2, -2): Status.UNBOUNDED,
}
# A limit of 0 means none to CBC.
_LEAST_SECONDS = 1e-3
# What CBC prints of a MIP's bound, and by how much that may have been rounded up, relative and absolute: where it was
# stopped, with six digits; where it finished, as its optimum's value, with eight decimals.
_BOUNDS = {
    Status.LIMIT: (re.compile(r"best possible (\S+?)\)"), 1e-5, 0.0),
    Status.OPTIMAL: (re.compile(r"^Objective value:\s+(\S+)", re.MULTILINE), 0.0, 1e-8),
}


@dataclass(frozen=True)
class PulpBackend(AbstractBackend):
    """PuLP, by default with CBC; ``solver`` "HiGHS" for the other one.

    Handles: linear programs, with or without whole columns; no cone.
    Sessions: the program is handed to PuLP once; solvers start again each time.
    """

    name: ClassVar[str] = "pulp"
    module: ClassVar[str] = "pulp"

    def start(self, program: Program) -> AbstractSession:
        if program.cone is not None:
            raise SolverError("backend pulp: cannot handle a second-order cone; use backend cvxpy")
        solver = self.solver or "CBC"
        if solver not in _SOLVERS:
            raise SolverError(f"backend pulp: solver {solver!r} is unknown; there are {' and '.join(_SOLVERS)}")
        pulp = import_solver(self.module, self.name)
        if not _made(pulp, solver).available():
            raise SolverError(f"backend pulp: PuLP does not find {solver}; install it, or choose the other solver")
        return _PulpSession(pulp, self, solver, program)


def _made(pulp: Any, solver: str, **options: Any) -> Any:
    """PuLP's object for a solver: of CBC the one that PuLP brings until its version 4, else the one installed."""
    if solver == "HiGHS":
        return pulp.HiGHS(msg=False, **options)
    bundled = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", "")
    return pulp.COIN_CMD(msg=False, path=bundled if Path(bundled).is_file() else None, **options)


class _PulpSession(AbstractSession):
    """One PuLP problem."""

    def __init__(self, pulp: Any, backend: PulpBackend, solver: str, program: Program) -> None:
        self._pulp, self._backend, self._solver, self._program = pulp, backend, solver, program
        self._problem = pulp.LpProblem("program", pulp.LpMinimize)
        bounds = zip(program.lower.tolist(), program.upper.tolist(), program.integer.tolist(), strict=True)
        self._columns = [
            self._problem.add_variable(f"x{j}", _or_none(low), _or_none(high), "Integer" if whole else "Continuous")
            for j, (low, high, whole) in enumerate(bounds)
        ]
        # PuLP takes no row and no objective without a column: this one is 0 wherever it stands.
        self._nothing = self._problem.add_variable("nothing", 0.0, 0.0)
        # The program's row of each of PuLP's constraints: one for an equation, else one for each bound.
        self._rows: list[int] = []
        A = program.A
        starts, columns, entries = A.indptr.tolist(), A.indices.tolist(), A.data.tolist()
        for i, (low, high) in enumerate(zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)):
            places = range(starts[i], starts[i + 1])
            total = pulp.lpSum([self._nothing, *(entries[k] * self._columns[columns[k]] for k in places)])
            if low == high:
                self._add(i, total == low)
            else:
                if low > -math.inf:
                    self._add(i, total >= low)
                if high < math.inf:
                    self._add(i, total <= high)
        unused = np.flatnonzero(np.bincount(columns, minlength=program.num_columns) == 0).tolist()
        if unused:
            # PuLP writes a file that CBC cannot read for a column that is in no row and at times has no cost.
            total = pulp.lpSum([self._columns[j] for j in unused])
            self._add(program.num_rows, total - self._problem.add_variable("total") == 0)

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        began = time.perf_counter()
        costs = zip(np.asarray(objective).tolist(), self._columns, strict=True)
        self._problem.setObjective(self._pulp.lpSum([self._nothing, *(cost * column for cost, column in costs)]))
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log.txt")
            said, trouble = self._solve(max(time_limit - (time.perf_counter() - began), _LEAST_SECONDS), log)
            printed = log.read_text(errors="replace") if log.exists() else ""
        seconds = time.perf_counter() - began
        status = _STATUSES.get(said, Status.FAILED)
        if status is Status.FAILED and not trouble and seconds >= time_limit:
            # Stopped before there was a point.
            status = Status.LIMIT
        has_point = said in ((1, 1), (1, 2))
        x = np.array([math.nan if column.varValue is None else column.varValue for column in self._columns])
        return Solution(
            status,
            x=x if has_point else None,
            objective=float(objective @ x) + offset if has_point else math.nan,
            bound=self._mip_bound(status, printed) + offset,
            row_duals=self._duals() if has_point and not self._program.is_mip else None,
            seconds=seconds,
            message="" if status is Status.OPTIMAL else f"{self._solver}: {trouble or said}",
        )

    def _solve(self, seconds: float, log: Path) -> tuple[tuple[int, int], str]:
        """Run the solver: PuLP's status and sol_status, and what was wrong."""
        backend, highs = self._backend, self._solver == "HiGHS"
        options: dict[str, Any] = {"gapRel": 0.0}
        if seconds < math.inf:
            options["timeLimit"] = seconds
        if highs:
            forget_threads()
            options.update(threads=backend.threads, random_seed=backend.seed, small_matrix_value=SMALL_ENTRY)
        else:
            options["logPath"] = str(log)
            # A seed of 0 means the time of day to CBC.
            options["options"] = [f"randomSeed {backend.seed + 1}", f"randomCbcSeed {backend.seed + 1}"]
            if backend.threads > 1:
                options["threads"] = backend.threads
        try:
            self._problem.solve(_made(self._pulp, self._solver, **options))
        except Exception as error:
            return (0, 0), one_line(error)
        model = self._problem.solverModel.getModelStatus().name if highs else ""
        if model == "kUnboundedOrInfeasible":
            return (0, 0), f"model status {model}"
        return (self._problem.status, self._problem.sol_status), ""

    def _duals(self) -> Array | None:
        """The rows' multipliers (m,): of a row with two bounds, the sum of both."""
        prices = [constraint.pi for constraint in self._problem.constraints()]
        if any(price is None for price in prices):
            return None
        duals = np.zeros(self._program.num_rows + 1)
        np.add.at(duals, self._rows, prices)
        return duals[:-1]

    def _mip_bound(self, status: Status, printed: str) -> float:
        """The solver's claim of a MIP's bound; -inf without one."""
        if not self._program.is_mip:
            return -math.inf
        if self._solver == "HiGHS":
            return float(self._problem.solverModel.getInfo().mip_dual_bound)
        if status not in _BOUNDS:
            return -math.inf
        pattern, relative, absolute = _BOUNDS[status]
        values = [float(value) for value in pattern.findall(printed)]
        return values[-1] - relative * abs(values[-1]) - absolute if values else -math.inf

    def _add(self, row: int, constraint: Any) -> None:
        self._problem += constraint
        self._rows.append(row)


def _or_none(bound: float) -> float | None:
    """PuLP's infinite bound."""
    return bound if math.isfinite(bound) else None
