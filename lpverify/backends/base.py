"""What every solver interface takes and returns: Program in, Solution out.

Signs of duals, for a minimisation with reduced costs r = objective - A^T y: y_i >= 0 where row i is held by its
lower bound, <= 0 where by its upper one; r_j >= 0 where column j is at its lower bound, <= 0 at its upper one.

``bound`` (what the solver claims to have proved) and ``objective`` (the value at a point) never mix. Neither is
believed by anything that writes a verdict.
"""

from __future__ import annotations

import abc
import enum
import importlib
import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lpverify.backends.scaling import Scaling, equilibrate
from lpverify.errors import SolverError
from lpverify.program import Array, Cone, Program

# A point that a solver left unfinished counts if it violates the scaled program by no more than this.
_POINT_TOLERANCE = 1e-6
# A reduced cost is zero but for rounding if it is smaller than this share of the terms that cancelled.
_ROUNDING = 2.0**-40


class Status(enum.StrEnum):
    """How a solver ended. Whatever a solver says that is not in its table is FAILED."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    LIMIT = "time limit"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver returned.

    Attributes:
        status: how it ended; STOPPED where ``stop_at`` was decided before the optimum.
        x: (n,) the best point found, None without one.
        objective: the objective at ``x``, evaluated here; NaN without a point.
        bound: a lower bound of the optimum that the solver claims; -inf without one. For LPs it is the Lagrangian
            bound of ``row_duals`` (``dual_bound``), never the primal value, and stays valid whatever the status.
        row_duals: (m,) the rows' multipliers of an LP, None for a MIP or without any.
        seconds: time in the solver.
        iterations, nodes: simplex iterations and branch-and-bound nodes, where the solver tells.
        message: what else the solver said.
    """

    status: Status
    x: Array | None = None
    objective: float = math.nan
    bound: float = -math.inf
    row_duals: Array | None = None
    seconds: float = 0.0
    iterations: int = 0
    nodes: int = 0
    message: str = ""


class AbstractSession(abc.ABC):
    """One program under changing objectives; hot-started where the solver can."""

    @abc.abstractmethod
    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        """Minimise objective.x + offset over the program's feasible set.

        Args:
            objective: (n,) costs.
            time_limit: seconds on the clock for this call.
            stop_at: end as soon as it is known on which side of this value the optimum is: a point with
                objective <= stop_at was found, or the bound is > stop_at. Backends may ignore it.
        """


@dataclass(frozen=True)
class AbstractBackend(abc.ABC):
    """A solver interface: final subclasses carry the solver's options as fields.

    Attributes:
        module: the package that is imported when a program first needs it; "" for none.
        solver: which of the interface's solvers to use; "" for its first choice.
        threads: processor threads for one solve.
        seed: of the solver's random choices.
    """

    name: ClassVar[str]
    module: ClassVar[str] = ""
    solver: str = ""
    threads: int = 1
    seed: int = 0

    @abc.abstractmethod
    def start(self, program: Program) -> AbstractSession:
        """A session on a program that is already checked and equilibrated."""

    def open(self, program: Program) -> AbstractSession:
        """A session on a program, equilibrated by powers of two before the solver sees it."""
        if not program.num_columns:
            return _NothingToSolve(program)
        scaled, scaling = equilibrate(program)
        return _ScaledSession(self, program, scaled, scaling)

    def solve(self, program: Program, *, time_limit: float = math.inf, stop_at: float | None = None) -> Solution:
        """Solve one program once."""
        return self.open(program).minimise(program.objective, program.offset, time_limit=time_limit, stop_at=stop_at)


class _NothingToSolve(AbstractSession):
    """A program without columns, which solvers do not take."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        if self._program.violation(np.zeros(0)) > 0:
            return Solution(Status.INFEASIBLE)
        return Solution(Status.OPTIMAL, np.zeros(0), offset, offset, np.zeros(self._program.num_rows))


class _ScaledSession(AbstractSession):
    """A session whose solver sees the equilibrated program, and whose answers are looked at before they leave."""

    def __init__(self, backend: AbstractBackend, program: Program, scaled: Program, scaling: Scaling) -> None:
        self._program, self._scaled, self._scaling = program, scaled, scaling
        self._session = backend.start(scaled)

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        program = self._program.with_objective(objective, offset)
        began = time.perf_counter()
        # The solver's objective has no constant and another unit; both come back with the solution.
        unit = self._scaling.unit(program.objective)
        found = self._session.minimise(
            self._scaling.objective(program.objective),
            time_limit=time_limit,
            stop_at=None if stop_at is None else (stop_at - offset) / unit,
        )
        status, message = found.status, found.message
        x = found.x if _is_finite(found.x) else None
        if x is not None and status is not Status.OPTIMAL and self._scaled.violation(x) > _POINT_TOLERANCE:
            x = None
        if x is None and status is Status.OPTIMAL:
            status, message = Status.FAILED, "; ".join(filter(None, (message, "optimal without a finite point")))
        x = None if x is None else self._scaling.point(x)
        duals = found.row_duals if _is_finite(found.row_duals) else None
        duals = None if duals is None else self._scaling.duals(self._right_signs(duals)) * unit
        if program.is_mip:
            bound = found.bound * unit + offset
        else:
            bound = dual_bound(program, duals) if duals is not None else -math.inf
        return replace(
            found,
            status=status,
            x=x,
            objective=math.nan if x is None else program.value(x),
            bound=bound if math.isfinite(bound) else -math.inf,
            row_duals=duals,
            seconds=found.seconds or time.perf_counter() - began,
            message=message,
        )

    def _right_signs(self, row_duals: Array) -> Array:
        """Multipliers (m,) without those that would call for an infinite bound; any others bound the optimum too."""
        low, high = np.isinf(self._program.row_lower), np.isinf(self._program.row_upper)
        return np.clip(row_duals, np.where(high, 0.0, -np.inf), np.where(low, 0.0, np.inf))


def import_solver(module: str, backend: str) -> Any:
    """A solver's package, imported when a program first needs it.

    Raises:
        SolverError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SolverError(f"backend {backend}: cannot import {module} ({error}); pip install {module}") from error


def one_line(error: BaseException) -> str:
    """A solver's error as part of a message: its class and its first line."""
    return ": ".join((type(error).__name__, *str(error).splitlines()[:1]))


def dual_bound(program: Program, row_duals: Array) -> float:
    """The Lagrangian bound of any multipliers y (m,) for the rows (Neumaier & Shcherbina 2004), up to rounding.

        offset + sum_i y_i (row_lower_i if y_i > 0 else row_upper_i)
               + min over x in [lower, upper], and in the cone, of (objective - A^T y).x

    -inf where an infinite bound is needed, unless the reduced cost there is what rounding leaves of zero.
    """
    with np.errstate(all="ignore"):
        reduced = program.objective - program.A.T @ row_duals
        ends = np.where(reduced > 0, program.lower, program.upper)
        if (np.isinf(ends) & (reduced != 0)).any():
            sizes = np.abs(program.objective) + abs(program.A).T @ np.abs(row_duals)
            reduced[np.isinf(ends) & (np.abs(reduced) <= _ROUNDING * sizes)] = 0.0
        rows = np.where(row_duals != 0, row_duals * np.where(row_duals > 0, program.row_lower, program.row_upper), 0.0)
        columns = np.where(reduced != 0, reduced * ends, 0.0)
        total = program.offset + rows.sum()
        if program.cone is not None:
            inside = program.cone.columns
            total += _over_ball(reduced[inside], program.lower[inside], program.upper[inside], program.cone)
            columns[inside] = 0.0
        total += columns.sum()
    return float(total) if np.isfinite(total) else -math.inf


def _over_ball(costs: Array, lower: Array, upper: Array, cone: Cone) -> float:
    """A lower bound of costs.x over [lower, upper] and |x - center|_2 <= radius: the minimum, up to bisection.

    For a weight t > 0, costs.x >= min over the box of costs.x + t/2 (|x - center|^2 - radius^2), which is taken
    coordinate by coordinate. The best t puts its point on the sphere, or is 0 where the box lies inside.
    """

    def at(weight: float) -> tuple[float, float]:
        x = np.clip(cone.center - costs / weight, lower, upper)
        excess = float(((x - cone.center) ** 2).sum() - cone.radius**2)
        return float(costs @ x) + weight / 2 * excess, excess

    norm = float(np.linalg.norm(costs))
    if norm == 0 or cone.radius == 0:
        return float(costs @ cone.center)
    low, high = 0.0, norm / cone.radius
    best = max(at(high)[0], float(np.where(costs > 0, costs * lower, costs * upper)[costs != 0].sum()))
    for _ in range(60):
        weight = (low + high) / 2
        value, excess = at(weight)
        best = max(best, value)
        low, high = (weight, high) if excess > 0 else (low, weight)
    return best


def _is_finite(values: Array | None) -> bool:
    return values is not None and bool(np.isfinite(values).all())
