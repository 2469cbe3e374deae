"""HiGHS through highspy: arrays in, duals and bounds out, objectives changed in place and hot-started.

Source: Huangfu & Hall 2018 (doi 10.1007/s12532-017-0130-5); highs.dev.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lpverify.backends.base import AbstractBackend, AbstractSession, Solution, Status, import_solver
from lpverify.errors import SolverError
from lpverify.program import Array, Program

# HiGHS leaves out entries of at most this size, by default 1e-9. It can be made no smaller.
SMALL_ENTRY = 1e-12

# What is not here is FAILED: iteration, memory and solution limits, "unbounded or infeasible", and all that later
# versions may add.
_STATUSES = {
    "kOptimal": Status.OPTIMAL,
    "kInfeasible": Status.INFEASIBLE,
    "kUnbounded": Status.UNBOUNDED,
    "kTimeLimit": Status.LIMIT,
}


@dataclass(frozen=True)
class HighsBackend(AbstractBackend):
    """HiGHS, by dual simplex and its branch and bound.

    Handles: linear programs, with or without whole columns; no cone.
    Sessions: linear programs continue from the last basis; MIPs start again.
    Time limits: HiGHS looks at the clock in the simplex and between the steps of its branch and bound, not in
        presolve, and seldom in the root node of a MIP.

    Attributes:
        tolerance: by how much rows, boxes, reduced costs and whole columns may be off, in scaled units. HiGHS's own
            1e-7, and 1e-6 for whole columns, were no faster, and bounds were off by up to 1e-6.
        mip_rel_gap, mip_abs_gap: branch and bound ends with OPTIMAL at such a gap between point and bound; the
            absolute one is in units of the largest scaled cost.
        lp_presolve: presolve a linear program before its first solve. It seldom pays for one that is solved often.
    """

    name: ClassVar[str] = "highs"
    module: ClassVar[str] = "highspy"
    tolerance: float = 1e-9
    mip_rel_gap: float = 0.0
    mip_abs_gap: float = 1e-9
    lp_presolve: bool = False

    def start(self, program: Program) -> AbstractSession:
        if self.solver:
            raise SolverError(f"backend highs: solver {self.solver!r} is unknown; it has only its own, leave it out")
        if program.cone is not None:
            raise SolverError("backend highs: cannot handle a second-order cone; use backend cvxpy")
        return _HighsSession(self, program)


def forget_threads() -> None:
    """Let the next run of HiGHS choose its number of threads.

    HiGHS keeps them for the whole process: it refuses another number, and an interrupted run may have left them work.
    """
    import_solver("highspy", "highs").Highs.resetGlobalScheduler(True)


class _Watch:
    """The callback that HiGHS calls as it works: ends the run at the deadline or once ``stop_at`` is decided.

    A Ctrl-C reaches Python when this is called. It refers to nothing of HiGHS: such a circle would never be freed.
    """

    def __init__(self, mip_kind: Any) -> None:
        self._mip_kind = mip_kind
        self.deadline = math.inf
        self.stop_at: float | None = None
        self.reason: Status | None = None

    def __call__(self, kind: Any, message: str, found: Any, answer: Any, data: Any) -> None:
        if self.reason is None and time.perf_counter() > self.deadline:
            self.reason = Status.LIMIT
        # Only in this kind of call are the bounds those of the MIP.
        if self.reason is None and self.stop_at is not None and kind == self._mip_kind:
            decided = found.mip_primal_bound <= self.stop_at or found.mip_dual_bound > self.stop_at
            self.reason = Status.STOPPED if decided else None
        if answer is not None:
            # HiGHS keeps the answer from one run to the next.
            answer.user_interrupt = self.reason is not None


class _HighsSession(AbstractSession):
    """One HiGHS instance for one program."""

    def __init__(self, backend: HighsBackend, program: Program) -> None:
        self._highspy = highspy = import_solver("highspy", "highs")
        self._is_mip = program.is_mip
        self._columns = np.arange(program.num_columns, dtype=np.int32)
        self._solved = False
        self._highs: Any = highspy.Highs()
        kinds = highspy.cb.HighsCallbackType
        self._watch = _Watch(kinds.kCallbackMipInterrupt)
        options = {
            "output_flag": False,
            "threads": backend.threads,
            "random_seed": backend.seed,
            "small_matrix_value": SMALL_ENTRY,
            "primal_feasibility_tolerance": backend.tolerance,
            "dual_feasibility_tolerance": backend.tolerance,
            "mip_feasibility_tolerance": backend.tolerance,
            "mip_rel_gap": backend.mip_rel_gap,
            "mip_abs_gap": backend.mip_abs_gap,
            # Dual simplex. HiGHS's own choice for a hot start is the primal one, which was three times slower.
            "simplex_strategy": 1,
            # The program is equilibrated already, and without a second scaling tolerances mean what they say.
            "simplex_scale_strategy": 0,
            "presolve": "on" if self._is_mip or backend.lp_presolve else "off",
        }
        for option, value in options.items():
            self._set(option, value)
        self._check(self._highs.setCallback(self._watch, None), "setCallback")
        for kind in (kinds.kCallbackSimplexInterrupt, kinds.kCallbackMipInterrupt):
            self._check(self._highs.startCallback(kind), "startCallback")
        self._is_refused = self._pass(program) == highspy.HighsStatus.kError
        dropped = program.A.nnz - self._highs.getNumNz()
        self._note = f"HiGHS left out {dropped} of {program.A.nnz} entries, all small" if dropped else ""

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        if self._highs is None:
            raise SolverError("backend highs: this session was interrupted; open another")
        if self._is_refused:
            return Solution(Status.FAILED, message="HiGHS refused the program")
        began = time.perf_counter()
        self._watch.deadline = began + time_limit
        self._watch.stop_at = stop_at - offset if self._is_mip and stop_at is not None else None
        costs = np.ascontiguousarray(objective, dtype=np.float64)
        self._check(self._highs.changeColsCost(len(costs), self._columns, costs), "changeColsCost")
        found = self._run(offset)
        if not self._is_mip:
            if self._solved and found.status not in (Status.OPTIMAL, Status.LIMIT):
                # Hot starts at times end as "unknown"; and no other objective makes a program infeasible.
                self._check(self._highs.clearSolver(), "clearSolver")
                found = self._run(offset)
            if not self._solved:
                self._solved = True
                self._set("presolve", "off")
        return replace(found, seconds=time.perf_counter() - began)

    def _run(self, offset: float) -> Solution:
        """Solve what HiGHS holds now."""
        highs, watch = self._highs, self._watch
        forget_threads()
        watch.reason = None
        # HiGHS counts the seconds of all runs of one instance.
        self._set("time_limit", highs.getRunTime() + max(watch.deadline - time.perf_counter(), 0.0))
        try:
            returned = highs.run()
        except BaseException:
            # Ctrl-C, raised in the callback, unwound HiGHS in the middle of its work.
            self._highs = None
            raise
        model = highs.getModelStatus()
        info, solution = highs.getInfo(), highs.getSolution()
        status = _STATUSES.get(model.name, Status.FAILED)
        if model.name == "kInterrupt":
            status = watch.reason or Status.FAILED
        notes = [self._note] if self._note else []
        if returned == self._highspy.HighsStatus.kError:
            status = Status.FAILED
            notes.append("run returned an error")
        if status != Status.OPTIMAL:
            notes.append(f"model status {model.name}")
        return Solution(
            status,
            x=np.array(solution.col_value) if solution.value_valid else None,
            objective=info.objective_function_value + offset,
            bound=info.mip_dual_bound + offset if self._is_mip else -math.inf,
            row_duals=np.array(solution.row_dual) if solution.dual_valid and not self._is_mip else None,
            iterations=max(info.simplex_iteration_count, 0),
            nodes=max(info.mip_node_count, 0) if self._is_mip else 0,
            message="; ".join(notes),
        )

    def _pass(self, program: Program) -> Any:
        """Hand the program to HiGHS; what it returned."""
        A = program.A
        return self._highs.passModel(
            program.num_columns,
            program.num_rows,
            A.nnz,
            int(self._highspy.MatrixFormat.kRowwise),
            int(self._highspy.ObjSense.kMinimize),
            0.0,
            program.objective,
            program.lower,
            program.upper,
            program.row_lower,
            program.row_upper,
            A.indptr.astype(np.int32),
            A.indices.astype(np.int32),
            A.data,
            program.integer.astype(np.int32),
        )

    def _set(self, option: str, value: bool | int | float | str) -> None:
        self._check(self._highs.setOptionValue(option, value), f"option {option}={value!r}")

    def _check(self, returned: Any, call: str) -> None:
        """HiGHS tells an error by what it returns, never by an exception."""
        if returned != self._highspy.HighsStatus.kOk:
            raise SolverError(f"backend highs: {call} returned {returned.name}")
