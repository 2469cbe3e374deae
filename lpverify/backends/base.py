"""What every solver interface takes and returns: Program in, Solution out.

Signs of duals, for a minimisation with reduced costs r = objective - A^T y: y_i >= 0 where row i is held by its
lower bound, <= 0 where by its upper one; r_j >= 0 where column j is at its lower bound, <= 0 at its upper one.

``bound`` (what the solver claims to have proved) and ``objective`` (the value at a point) never mix. Neither is
believed by anything that writes a verdict.
"""

from __future__ import annotations

import abc
import enum
import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lpverify.backends.scaling import Scaling, equilibrate
from lpverify.program import Array, Program


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
            bound of ``row_duals`` (``dual_bound``), never the primal value.
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
        solver: which of the interface's solvers to use; "" for its first choice.
        threads: processor threads for one solve.
        seed: of the solver's random choices.
    """

    name: ClassVar[str]
    solver: str = ""
    threads: int = 1
    seed: int = 0

    @abc.abstractmethod
    def start(self, program: Program) -> AbstractSession:
        """A session on a program that is already checked and equilibrated."""

    def open(self, program: Program) -> AbstractSession:
        """A session on a program, equilibrated by powers of two before the solver sees it."""
        scaled, scaling = equilibrate(program)
        return _ScaledSession(self, program, scaled, scaling)

    def solve(self, program: Program, *, time_limit: float = math.inf, stop_at: float | None = None) -> Solution:
        """Solve one program once."""
        return self.open(program).minimise(program.objective, program.offset, time_limit=time_limit, stop_at=stop_at)


class _ScaledSession(AbstractSession):
    """A session whose solver sees the equilibrated program."""

    def __init__(self, backend: AbstractBackend, program: Program, scaled: Program, scaling: Scaling) -> None:
        self._program, self._scaling = program, scaling
        self._session = backend.start(scaled)

    def minimise(
        self, objective: Array, offset: float = 0.0, *, time_limit: float = math.inf, stop_at: float | None = None
    ) -> Solution:
        program = self._program.with_objective(objective, offset)
        scaled = self._scaling.objective(program.objective)
        began = time.perf_counter()
        # The solver's objective has no constant and another unit; both come back with the solution.
        unit = self._scaling.unit(program.objective)
        found = self._session.minimise(
            scaled, time_limit=time_limit, stop_at=None if stop_at is None else (stop_at - offset) / unit
        )
        seconds = found.seconds or time.perf_counter() - began
        x = None if found.x is None else self._scaling.point(found.x)
        duals = None if found.row_duals is None else self._scaling.duals(found.row_duals) * unit
        if program.is_mip:
            bound = found.bound * unit + offset
        else:
            bound = dual_bound(program, duals) if duals is not None else -math.inf
        return replace(
            found,
            x=x,
            objective=math.nan if x is None else program.value(x),
            bound=bound,
            row_duals=duals,
            seconds=seconds,
        )


def dual_bound(program: Program, row_duals: Array) -> float:
    """The Lagrangian bound of any multipliers y (m,) for the rows (Neumaier & Shcherbina 2004), up to rounding.

        offset + sum_i y_i (row_lower_i if y_i > 0 else row_upper_i)
               + sum_j min over [lower_j, upper_j] of (objective - A^T y)_j x_j

    A cone is left out, so that the bound holds but may be loose there. -inf where an infinite bound is needed.
    """
    with np.errstate(all="ignore"):
        reduced = program.objective - program.A.T @ row_duals
        rows = np.where(row_duals > 0, program.row_lower, program.row_upper)
        columns = np.where(reduced > 0, program.lower, program.upper)
        held = np.where(row_duals != 0, row_duals * rows, 0.0).sum()
        total = program.offset + held + np.where(reduced != 0, reduced * columns, 0.0).sum()
    return float(total) if np.isfinite(total) else -math.inf
