"""Any solver that cvxpy knows, through the matrix form of the program.

Source: Diamond & Boyd 2016 (arXiv 1603.00943); Agrawal & Boyd 2020 (arXiv 2004.11408) for parameters.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, import_solver, one_line
from lpverify.backends.highs import SMALL_ENTRY, forget_threads
from lpverify.errors import SolverError
from lpverify.program import Array, Program

# What is not here is FAILED, above all whatever cvxpy calls inaccurate.
_STATUSES = {
    "optimal": Status.OPTIMAL,
    "infeasible": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
    "user_limit": Status.LIMIT,
}
# Where a solver takes its limit in seconds: the option, or the dictionary and the option in it.
_TIME_LIMITS: dict[str, tuple[str, ...]] = {
    "CLARABEL": ("time_limit",),
    "GUROBI": ("TimeLimit",),
    "HIGHS": ("time_limit",),
    "MOSEK": ("mosek_params", "MSK_DPAR_OPTIMIZER_MAX_TIME"),
    "OSQP": ("time_limit",),
    "SCIP": ("scip_params", "limits/time"),
    "SCIPY": ("scipy_options", "time_limit"),
    "SCS": ("time_limit_secs",),
}
# A limit of 0 means none to some solvers.
_LEAST_SECONDS = 1e-3


@dataclass(frozen=True)
class CvxpyBackend(AbstractBackend):
    """cvxpy, by default with HiGHS, and with Clarabel for programs with a cone.

    Handles: what the chosen solver handles; cones and whole columns together need one that knows both.
    Sessions: the program is compiled once; the objective is a parameter. Solvers start again each time.
    Time limits: passed to the solvers of ``_TIME_LIMITS``; others are not told, which ``message`` says. A Ctrl-C waits
        for most solvers to return.
    """

    name: ClassVar[str] = "cvxpy"
    module: ClassVar[str] = "cvxpy"

    def start(self, program: Program) -> AbstractSession:
        cp = import_solver(self.module, self.name)
        solver = self.solver or ("HIGHS" if program.cone is None else "CLARABEL")
        installed = cp.installed_solvers()
        if solver not in installed:
            raise SolverError(f"backend cvxpy: solver {solver!r} is not installed; there are {', '.join(installed)}")
        return _CvxpySession(cp, self, solver, program)


class _CvxpySession(AbstractSession):
    """One cvxpy problem, its objective a parameter."""

    def __init__(self, cp: Any, backend: CvxpyBackend, solver: str, program: Program) -> None:
        self._solver = solver
        self._options = _options(solver, backend, program.is_mip)
        n = program.num_columns
        whole = np.flatnonzero(program.integer)
        self._x = cp.Variable(n, bounds=[program.lower, program.upper], integer=(whole,) if len(whole) else False)
        self._costs = cp.Parameter(n, value=program.objective)
        lower, upper, A, x = program.row_lower, program.row_upper, program.A, self._x
        equal = lower == upper
        below, above = np.isfinite(lower) & ~equal, np.isfinite(upper) & ~equal
        # Each kind of row with the sign that takes cvxpy's multipliers to ours.
        self._rows: list[tuple[NDArray[np.bool_], float, Any]] = []
        if equal.any():
            self._rows.append((equal, -1.0, A[equal] @ x == lower[equal]))
        if below.any():
            self._rows.append((below, 1.0, A[below] @ x >= lower[below]))
        if above.any():
            self._rows.append((above, -1.0, A[above] @ x <= upper[above]))
        constraints = [constraint for _, _, constraint in self._rows]
        if program.cone is not None:
            constraints.append(cp.SOC(cp.Constant(program.cone.radius), x[program.cone.columns] - program.cone.center))
        self._num_rows, self._is_mip = program.num_rows, program.is_mip
        self._problem = cp.Problem(cp.Minimize(self._costs @ x), constraints)
        try:
            # Compiles the program, so that what the solver cannot handle shows here.
            self._problem.get_problem_data(solver)
        except cp.SolverError as error:
            raise SolverError(f"backend cvxpy: {solver} cannot handle this program ({one_line(error)})") from error

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        began = time.perf_counter()
        notes = []
        options = {name: dict(value) if isinstance(value, dict) else value for name, value in self._options.items()}
        if time_limit < math.inf:
            *outer, option = _TIME_LIMITS.get(self._solver, ("",))
            if option:
                holder = options.setdefault(outer[0], {}) if outer else options
                holder[option] = max(time_limit, _LEAST_SECONDS)
            else:
                notes.append(f"{self._solver} was not told the time limit")
        self._costs.value = np.asarray(objective, dtype=np.float64)
        if self._solver == "HIGHS":
            forget_threads()
        try:
            with warnings.catch_warnings():
                # cvxpy warns of what it also returns as the status.
                warnings.simplefilter("ignore")
                self._problem.solve(solver=self._solver, warm_start=False, **options)
            said = self._problem.status
        except Exception as error:
            # A solver of cvxpy's may raise anything.
            said = one_line(error)
        seconds = time.perf_counter() - began
        status = _STATUSES.get(said, Status.FAILED)
        if status is Status.FAILED and seconds >= time_limit:
            # Not every solver says that it was the time.
            status = Status.LIMIT
        if status is not Status.OPTIMAL:
            notes.append(f"{self._solver}: {said}")
        has_point = said in ("optimal", "optimal_inaccurate", "user_limit")
        return Solution(
            status,
            x=self._x.value if has_point else None,
            objective=float(self._problem.value) + offset if has_point else math.nan,
            bound=self._mip_bound() + offset if has_point and self._is_mip else -math.inf,
            row_duals=self._duals() if has_point and not self._is_mip else None,
            seconds=seconds,
            iterations=int(self._problem.solver_stats.num_iters or 0) if has_point else 0,
            message="; ".join(notes),
        )

    def _duals(self) -> Array | None:
        """The rows' multipliers (m,) in the signs of ``Solution``."""
        duals = np.zeros(self._num_rows)
        for rows, sign, constraint in self._rows:
            if constraint.dual_value is None:
                return None
            duals[rows] += sign * constraint.dual_value
        return duals

    def _mip_bound(self) -> float:
        """What HiGHS, by itself or in scipy, claims of a MIP; -inf for solvers of whose claim cvxpy says nothing.

        cvxpy leaves the objective's constant out of it; there is none here.
        """
        stats = self._problem.solver_stats.extra_stats
        if self._solver == "HIGHS":
            return float(stats.mip_dual_bound)
        bound = stats.get("mip_dual_bound") if self._solver == "SCIPY" else None
        return -math.inf if bound is None else float(bound)


def _options(solver: str, backend: CvxpyBackend, is_mip: bool) -> dict[str, Any]:
    """The options of every solve."""
    gap = {"mip_rel_gap": 0.0} if is_mip else {}
    options: dict[str, dict[str, Any]] = {
        "HIGHS": {
            "threads": backend.threads,
            "random_seed": backend.seed,
            "small_matrix_value": SMALL_ENTRY,
            **gap,
        },
        "SCIPY": {"scipy_options": gap},
        # The default of 1e-4 leaves bounds that prove little.
        "SCS": {"eps_abs": 1e-7, "eps_rel": 1e-7},
    }
    return options.get(solver, {})
